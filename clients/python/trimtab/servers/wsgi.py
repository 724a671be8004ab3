"""WSGI applications in a mesh: what their callers say is heard, and the policies of the service decide who is let in.

>>> application = MeshWsgi(application, mesh, "orders")

``MeshFlask`` has it built in. A call that waits holds its thread: give a server more threads than the policy has places, or a
policy no queue.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextvars import Context, copy_context
from http import HTTPStatus
from math import inf
from typing import Any

from trimtab.calling import context
from trimtab.core.orca import LOAD_HEADER
from trimtab.core.serving import NO_HEADERS, Arrival
from trimtab.errors import TrimtabError
from trimtab.gate import Gate, Visit
from trimtab.load_meter import LoadMeter
from trimtab.servers.admission import HEALTH_PATHS, Problem, Reception, priority_of, problem, timeout_of, wait

StartResponse = Callable[..., Any]
WSGIApp = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]


class MeshWsgi:
    """WSGI middleware: as ``MeshServer`` for ASGI, but that clients that go away while they wait are not noticed.

    ``mesh`` and ``service`` (with ``namespace``, by default the mesh's own) say what is served. The paths ``exempt`` are let in
    whatever else is going on. ``load_reports``: every answer tells of the load, asked for or not.
    """

    def __init__(
        self,
        app: WSGIApp,
        mesh: Any,
        service: str,
        *,
        namespace: str | None = None,
        exempt: Collection[str] = HEALTH_PATHS,
        load_reports: bool = False,
    ) -> None:
        self._app = app
        self._reception = Reception(mesh, service, namespace)
        self._exempt = frozenset(exempt)
        self._load_reports = load_reports

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Serve one call."""
        reception = self._reception
        service = _Service(reception)
        told = None
        try:
            if environ.get("PATH_INFO", "") not in self._exempt:
                gate = reception.gate or reception.open()
                told = service.admit(gate, environ) if gate is not None else None
                asked = self._load_reports or "HTTP_ENDPOINT_LOAD_METRICS_FORMAT" in environ
                if told is None and (asked or reception.meter.counting):
                    start_response = service.metered(reception.meter, start_response, asked)
            if told is None:
                service.body = service.run(self._app, environ, start_response)
                return service
        except BaseException:
            service.good = False
            service.close()
            raise
        service.close()
        start_response(f"{told.status} {HTTPStatus(told.status).phrase}", told.headers)
        return content(environ, told.body)

    def open(self) -> None:
        """Follow the policies from now on, so that they hold for the first call."""
        self._reception.open()


class _Service:
    """One call while it is served, which is until the server closes its body, as WSGI demands."""

    def __init__(self, reception: Reception) -> None:
        self.body: Iterable[bytes] = ()
        self.good = True
        self._visit: Visit | None = None
        self._context: Context | None = None
        self._meter: LoadMeter | None = None
        self._failed = False  # as its status says
        self._serving = reception.serving
        self._serving.enter()
        self._over = False

    def admit(self, gate: Gate, environ: dict[str, Any]) -> Problem | None:
        """Let the call in, when it is its turn. Returns the answer to a call that is refused."""
        timeout = timeout_of(environ.get("HTTP_TRIMTAB_TIMEOUT_MS", ""))
        priority = priority_of(environ.get("HTTP_TRIMTAB_PRIORITY", ""))
        if timeout is None and not priority and gate.idle:
            return None
        now = gate.clock.now()
        deadline = None if timeout is None else now + timeout
        headers = _lowered(environ) if gate.needs_headers else NO_HEADERS
        call = Arrival(
            environ["REQUEST_METHOD"], _path(environ), headers, priority, inf if deadline is None else deadline
        )
        try:
            self._visit = gate.arrive(call, now)
            if self._visit is not None and self._visit.until is not None:
                wait(self._visit)
        except TrimtabError as error:
            return problem(error)
        if deadline is not None or priority:
            # The body may be made while it is sent, in turns with other calls: so it gets a context of its own.
            self._context = copy_context()
            self._context.run(context.deadline.set, deadline)
            # Whoever mirrors says how long it waits, so copies come here.
            marks = context.marked(priority, "HTTP_TRIMTAB_MIRRORED" in environ)
            self._context.run(context.marks.set, marks)
        return None

    def metered(self, meter: LoadMeter, start_response: StartResponse, asked: bool) -> StartResponse:
        """Count the call, and have its answer tell of the load if its caller asked for that."""
        self._meter = meter

        def start(status: str, headers: list[tuple[str, str]], *error: Any) -> Any:
            self._failed = status.startswith("5")
            if asked:
                headers = [*headers, (LOAD_HEADER, meter.report().text)]
            return start_response(status, headers, *error)

        return start

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function of the application, with what it inherits."""
        return function(*args) if self._context is None else self._context.run(function, *args)

    def __iter__(self) -> Iterator[bytes]:
        chunks = self.run(iter, self.body)
        if self._context is None and self._visit is None and self._meter is None:
            yield from chunks
            return
        try:
            while (chunk := self.run(next, chunks, None)) is not None:
                yield chunk
        except Exception:
            self.good = False
            raise

    def close(self) -> None:
        """The server is done with the body."""
        if self._over:
            return
        self._over = True
        try:
            close = getattr(self.body, "close", None)
            if close is not None:
                self.run(close)
        finally:
            if self._visit is not None:
                self._visit.leave(self._visit.clock.now(), self.good)
            if self._meter is not None:
                self._meter.served(self._failed or not self.good)
            self._serving.exit()


def content(environ: dict[str, Any], body: bytes) -> Iterable[bytes]:
    """What follows the headers of an answer: nothing for HEAD, where servers would send what they are given."""
    return [] if environ.get("REQUEST_METHOD") == "HEAD" else [body]


def _path(environ: dict[str, Any]) -> str:
    path: str = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    # WSGI's strings are bytes in disguise (PEP 3333).
    return path if path.isascii() else path.encode("latin-1").decode("utf-8", "replace")


def _lowered(environ: dict[str, Any]) -> dict[str, str]:
    found = {name[5:].replace("_", "-").lower(): value for name, value in environ.items() if name.startswith("HTTP_")}
    if "CONTENT_TYPE" in environ:
        found["content-type"] = environ["CONTENT_TYPE"]
    return found
