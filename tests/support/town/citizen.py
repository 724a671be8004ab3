"""A client process of the mesh that does as it is told: ``python -m tests.support.town.citizen SETTINGS``.

SETTINGS is JSON: ``face`` is "sync" or "async", the rest are the Mesh's arguments. A line of standard input is a command,
``{"do": "serve", …}``; each is answered by a line on standard output, ``{"ok": …}`` or ``{"error": {…}}``. SIGTERM makes it
drain what it serves and leave; the end of its input makes it leave at once.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import resource
import signal
import sys
import threading
import time
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from trimtab import Mesh, TrimtabError
from trimtab.servers.drain import Drain

from tests.support.town.load import Caller, LoopCaller, ThreadCaller

DRAIN_LIMIT = 5.0


class Server(ThreadingHTTPServer):
    """Answers every GET with who it is, after as many seconds as the path says: ``/v1/0.05``."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, mesh: Mesh, id: str, port: int) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.mesh = mesh
        self.id = id
        threading.Thread(target=self.serve_forever, args=(0.05,), name=f"serve {id}", daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        with self.server.mesh.serving:
            time.sleep(float(self.path.rpartition("/")[2] or 0))
            body = json.dumps({"id": self.server.id, "pid": os.getpid()}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


class Warnings(logging.Handler):
    """Keeps what was logged as a warning or worse."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []
        logging.getLogger().addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


class Citizen:
    """Each public method is a command."""

    def __init__(self, face: str, settings: dict[str, Any]) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._async: Any = None
        if face == "async":
            self._loop = asyncio.new_event_loop()
            threading.Thread(target=self._loop.run_forever, name="loop", daemon=True).start()
            self._async = self._await(_make(settings))
            self._mesh: Mesh = self._async.sync
        else:
            self._mesh = Mesh(**settings)
        self._registrations: dict[str, Any] = {}
        self._servers: list[Server] = []
        self._callers: list[Caller] = []
        self._config: Any = None
        self._witnessed: dict[str, list[list[str]]] = {}
        self._warnings = Warnings()

    # Serving

    def serve(self, service: str, id: str, port: int, **said: Any) -> str:
        """Serve HTTP on ``port``, and register; the instance's id as stored."""
        self._servers.append(Server(self._mesh, id, port))
        return self.register(service, id, port, **said)

    def register(self, service: str, id: str, port: int, **said: Any) -> str:
        """Register without serving anything."""
        said.setdefault("address", "127.0.0.1")
        if self._async is not None:
            registration: Any = self._await(self._async.register(service, port, id=id, **said))
        else:
            registration = self._mesh.register(service, port, id=id, **said)
        self._registrations[id] = registration
        return str(registration.id)

    def deregister(self, id: str, wait: bool = True) -> None:
        self._settle(self._registrations.pop(id).deregister(wait=wait))

    def update(self, id: str, **changes: Any) -> None:
        self._settle(self._registrations[id].update(**changes))

    def registered(self) -> dict[str, bool]:
        return {id: registration.registered for id, registration in self._registrations.items()}

    # Calling

    def call(self, service: str, rate: float, pause: float = 0.0, timeout: float = 10.0) -> None:
        """Call a service from now on, ``rate`` times a second."""
        url = f"mesh://{service}/v1/{pause:g}"
        if self._async is not None:
            assert self._loop is not None
            http = self._await(_client(self._async, timeout))
            self._callers.append(LoopCaller(http, url, rate, self._loop))
        else:
            self._callers.append(ThreadCaller(self._mesh.http_client(timeout=timeout), url, rate))

    def calls(self, since: int) -> list[tuple[Any, ...]]:
        """What became of the calls, but for the first ``since``."""
        [caller] = self._callers
        return list(caller.calls[since:])

    def rest(self) -> None:
        """Begin no more calls, and wait for those that were begun."""
        for caller in self._callers:
            caller.stop()

    def pick(self, service: str) -> str:
        with self._mesh.pick(service) as pick:
            return pick.endpoint.id

    def wait_ready(self, service: str, timeout: float) -> None:
        self._mesh.wait_ready(service, timeout)

    # Seeing

    def view(self, service: str) -> dict[str, Any]:
        """All that this process knows of a service."""
        state = self._mesh.service(service)
        endpoints = {
            e.id: {"address": e.address, "port": e.port, "weight": e.weight, "health": e.health, "zone": e.zone}
            for e in state.endpoints.values()
        }
        return {"version": state.version, "stale": state.stale, "protected": state.protected, "endpoints": endpoints}

    def witness(self, service: str) -> None:
        """Note who is there, with every change from now on."""
        seen = self._witnessed[service] = []
        self._mesh.watch(service, lambda state: seen.append(sorted(state.endpoints)))

    def witnessed(self, service: str) -> list[list[str]]:
        return self._witnessed[service]

    def status(self) -> dict[str, Any]:
        return asdict(self._mesh.status())

    def follow(self, name: str) -> None:
        """Follow a configuration file as a ``Shop``."""
        from tests.support.town.shop import Shop

        config = (self._async or self._mesh).config(name, Shop, default=Shop())
        self._config = self._await(config) if self._async is not None else config

    def config(self) -> dict[str, Any]:
        error = self._config.error
        return {**self._config.value.model_dump(), "error": str(error) if error else ""}

    def warnings(self) -> list[str]:
        """What the SDK complained about."""
        return self._warnings.messages

    # Going

    def fill_disk(self, full: bool) -> None:
        """Have every write to a file fail from now on, as on a disk that is full, or no longer."""
        _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0 if full else most, most))

    def leave(self, drain: bool) -> None:
        """Take what is registered out of traffic, serve on while clients learn of it, and go."""
        if drain and self._registrations:
            for registration in self._registrations.values():
                self._settle(registration.drain())
            patience, began = Drain(DRAIN_LIMIT), time.monotonic()
            while not patience.over(time.monotonic() - began, int(self._mesh.serving)):
                time.sleep(0.02)
        if self._async is not None:
            self._await(self._async.close())
        else:
            self._mesh.close()

    def _settle(self, outcome: Any) -> None:
        if asyncio.iscoroutine(outcome):
            self._await(outcome)

    def _await(self, work: Any) -> Any:
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)


async def _make(settings: dict[str, Any]) -> Any:
    from trimtab import AsyncMesh

    return AsyncMesh(**settings)


async def _client(mesh: Any, timeout: float) -> Any:
    return mesh.http_client(timeout=timeout)


def _answer(citizen: Citizen, command: dict[str, Any]) -> dict[str, Any]:
    act = getattr(citizen, command.pop("do"))
    try:
        return {"ok": act(**command)}
    except TrimtabError as error:
        told = {"type": type(error).__name__, "code": error.code, "message": error.message, "hint": error.hint}
        return {"error": told | {"text": str(error)}}
    except Exception as error:  # told to the test, whose failure shows it
        logging.exception("a command failed")
        return {
            "error": {"type": type(error).__name__, "code": "", "message": str(error), "hint": "", "text": repr(error)}
        }


def _terminate(*_: object) -> None:
    raise SystemExit(0)


def main() -> None:
    """Obey until the input ends, or SIGTERM comes."""
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel("WARNING")
    signal.signal(signal.SIGTERM, _terminate)
    settings = json.loads(sys.argv[1])
    try:
        citizen = Citizen(settings.pop("face"), settings)
    except TrimtabError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    drain = True
    try:
        print(json.dumps({"ok": os.getpid()}), flush=True)
        for line in sys.stdin:
            print(json.dumps(_answer(citizen, json.loads(line))), flush=True)
        drain = False
    finally:
        citizen.leave(drain)


if __name__ == "__main__":
    main()
