"""Flask, and any WSGI application, in a mesh.

>>> app = Flask(__name__)
>>> MeshFlask(app, mesh, service="orders", port=8000, drain="5s")

Works under gunicorn's sync and gthread workers and under the development server. See ``trimtab.servers`` on several workers.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from trimtab.errors import SettingsInvalid
from trimtab.servers.admission import HEALTH_PATHS
from trimtab.servers.member import REGISTERED_BY, Member, Place
from trimtab.servers.wsgi import MeshWsgi, StartResponse, content


class MeshFlask:
    """Keeps ``service`` registered while this process serves ``app`` on ``port``.

    Make it in the main thread when the application is made. It registers as starting, and is ready when the port answers.
    ``app`` is a Flask application, whose ``wsgi_app`` is wrapped; any other WSGI application is served as
    ``MeshFlask(...)`` itself, which is callable. ``drain`` bounds how long it serves on after SIGTERM; ``readiness`` is a
    path to answer itself: 200, or 503 while draining. Calls are let in as by ``MeshWsgi``, which ``exempt`` and
    ``load_reports`` are for. The rest is as in ``Mesh.register``. Raises SettingsInvalid when the process is going to be forked.
    """

    def __init__(
        self,
        app: Any,
        mesh: Any = None,
        *,
        service: str,
        port: int,
        drain: str | float = "5s",
        readiness: str | None = None,
        exempt: Collection[str] = HEALTH_PATHS,
        load_reports: bool = False,
        address: str | None = None,
        id: str = "",
        weight: int = 0,
        zone: str = "",
        metadata: Mapping[str, str] | None = None,
        namespace: str | None = None,
    ) -> None:
        _refuse_before_fork()
        if mesh is None:
            from trimtab import Mesh

            mesh = Mesh()
        self._readiness = readiness
        application = getattr(app, "wsgi_app", app)
        self._served = MeshWsgi(
            application, mesh, service, namespace=namespace, exempt=exempt, load_reports=load_reports
        )
        if hasattr(app, "wsgi_app"):
            app.wsgi_app = self
        place = Place(service, port, address, id, weight, zone, metadata or {}, namespace)
        self.member = Member(mesh, place, drain=drain)
        self.member.start()
        self._served.open()

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Serve one call."""
        if self._readiness is not None and environ.get("PATH_INFO") == self._readiness:
            draining = self.member.draining
            start_response("503 Service Unavailable" if draining else "200 OK", [("Content-Type", "text/plain")])
            return content(environ, b"draining\n" if draining else b"ready\n")
        return self._served(environ, start_response)


def _refuse_before_fork() -> None:
    """gunicorn with --preload makes the application in its arbiter, where a registration would be nobody's."""
    arbiter = sys.modules.get("gunicorn.arbiter")
    if arbiter is None or os.environ.get(REGISTERED_BY) or "gunicorn" not in os.environ.get("SERVER_SOFTWARE", ""):
        return
    # A worker that speaks WSGI has taken SIGTERM before it loads the application; the arbiter that preloads has not.
    if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        raise SettingsInvalid(
            "MeshFlask in an application that gunicorn preloads would register the arbiter, not its workers",
            hint="put trimtab.servers.gunicorn into gunicorn.conf.py, or drop --preload",
        )
