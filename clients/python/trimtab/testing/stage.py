"""Where requests come to that would have gone over the network: who is asked is found out, and the script answers."""

from __future__ import annotations

from collections.abc import Mapping

from trimtab.core.endpoints import Endpoint
from trimtab.testing.engine import FakeEngine
from trimtab.testing.script import NobodyAnswers, Outcome, Request, Scripts


class Stage:
    """The endpoints of a fake mesh, as far as a script answers for them."""

    def __init__(self, engine: FakeEngine, scripts: Scripts) -> None:
        self.clock = engine.clock
        self._engine = engine
        self._scripts = scripts

    def answer(
        self, target: str, method: str, path: str, headers: Mapping[str, str], body: bytes, patience: float | None
    ) -> Outcome | None:
        """What comes of a request to ``target``, HOST:PORT; None: it is to be sent. Raises NobodyAnswers.

        ``patience``: how many seconds it may take until there is an answer; None: without end.
        """
        service, endpoint = self._asked(target, headers.get("host", ""))
        script = self._scripts.find(service, endpoint)
        if script is None:
            return None
        return script.perform(Request(service, endpoint, method, path, headers, body), patience)

    def _asked(self, target: str, host: str) -> tuple[str, Endpoint]:
        found = [
            (callee.name, endpoint)
            for callee in self._engine.discovery.callees()
            for endpoint in callee.state.endpoints.values()
            if endpoint.target == target
        ]
        if not found:
            raise NobodyAnswers(f"no service has an endpoint {target}")
        # Several services may be at one address: then the one that the Host header names.
        name = host.partition(".")[0]
        return next((one for one in found if one[0].endswith(f"/{name}")), found[0])
