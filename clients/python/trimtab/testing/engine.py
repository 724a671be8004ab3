"""The engine of a fake mesh: the real one, over a registry in memory, by a clock of its own, writing its calls down."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from trimtab.callbacks import Callbacks, Told
from trimtab.calling.crew import RealCrew
from trimtab.core.calling.call import Call
from trimtab.core.calling.pipeline import Pipeline
from trimtab.core.calling.rules import Release
from trimtab.core.endpoints import ServiceState
from trimtab.core.session import Session, Step
from trimtab.discovery import Callee
from trimtab.engine import Engine
from trimtab.gate import Gate
from trimtab.hooks import Hooks
from trimtab.load_meter import LoadMeter
from trimtab.settings import Settings
from trimtab.stream import Command, Observer, Stream
from trimtab.testing.clock import FakeClock
from trimtab.testing.registry import Registry
from trimtab.v1.mesh_pb2 import ServerMessage


class FakeEngine(Engine):
    """``made``: the calls to each service, by full name, in the order of their beginnings. ``seed``: of all chance."""

    def __init__(self, settings: Settings, clock: FakeClock, seed: int, hooks: Sequence[Hooks] = ()) -> None:
        super().__init__(settings, lambda: (0.0, 0.0), hooks)
        self.clock = clock
        self.registry = Registry()
        self.lock = threading.RLock()
        self.made: dict[str, list[Call]] = {}
        self.callbacks = _AtOnce()
        self.crew = _OneAfterTheOther()
        self.load_meter = LoadMeter(lambda: (0.0, 0.0), clock)
        # Also what depends on who calls, as a subset of the endpoints does, is the same every time.
        self.caller = replace(self.caller, client_id="fake")
        self._seed = seed

    def ready(self, service: str, namespace: str | None) -> Callee | None:
        """Return a service. There is nothing to wait for, so no call waits in a thread while virtual time goes on."""
        known = super().ready(service, namespace)
        if known is None:
            known = self.discover(service, namespace)
            self.remember(service, namespace, known)
        return known

    def new_callee(self, name: str, state: ServiceState | None, policies: Mapping[str, Release | None]) -> Callee:
        """A service whose calls are written down."""
        made = self.made.setdefault(name, [])
        rng = random.Random(f"{self._seed} {name}")
        return _FakeCallee(made, name, self.caller, self.no_endpoints, state, policies, rng, self.clock, self.crew)

    def new_gate(self, name: str, policies: Mapping[str, Release | None]) -> Gate:
        """What lets calls into a service, by the fake mesh's clock."""
        return Gate(name, policies, self.wake, random.Random(f"{self._seed} {name}"), self.clock)

    def _circuit_changed(self) -> None:
        """Nobody is told. What is posted here is done at once, and other threads may hold the two locks the other way round."""

    def new_stream(self, session: Session) -> Stream:
        """A stream to the registry."""
        return _FakeStream(self.settings, session, self, self.registry, self.clock, self.lock)


class _FakeStream(Stream):
    """A stream without a thread and without a wire: what is posted is done, and answered, before ``post`` returns."""

    def __init__(
        self,
        settings: Settings,
        session: Session,
        observer: Observer,
        registry: Registry,
        clock: FakeClock,
        lock: threading.RLock,
    ) -> None:
        super().__init__(settings, session, observer, clock=clock.now)
        self._registry = registry
        self._lock = lock

    def start(self) -> None:
        """Say Hello."""
        with self._lock:
            self.link.server, self.link.replica = self._settings.servers[0], "fake"
            self.link.connected, self.link.connects = True, 1
            self._registry.tell = self._hear
            self._send(Step(send=[self._session.hello()]))

    def post(self, command: Command) -> None:
        """Do a command."""
        with self._lock:
            self._do(command(self._session, self._clock()))

    def close(self, timeout: float) -> None:
        """Say Goodbye."""
        with self._lock:
            self._send(self._session.leave("stopped"))
            self._away()

    def park(self, timeout: float) -> bool:
        """There is nothing that a fork could disturb."""
        return False

    def _send(self, step: Step) -> None:
        for message in step.send:
            for answer in self._registry.take(message):
                self._hear(answer)

    def _hear(self, message: ServerMessage) -> None:
        self._do(self._session.received(message, self._clock()))


class _FakeCallee(Callee):
    """A service whose calls are written down."""

    def __init__(self, made: list[Call], *known: Any) -> None:
        super().__init__(*known)
        self._made = made

    @property
    def pipelines(self) -> Mapping[str, Pipeline]:
        """None is ready: each call's is made to write it down."""
        return {}

    @pipelines.setter
    def pipelines(self, ready: Mapping[str, Pipeline]) -> None:
        """Those that other services have ready."""

    def pipeline(self, method: str, path: str = "", headers: Mapping[str, str] | None = None) -> Pipeline:
        """What a call goes through."""
        return cast("Pipeline", _Recorded(super().pipeline(method, path, headers), self._made))


class _Recorded:
    """A pipeline that writes down which calls begin, also those that are refused."""

    def __init__(self, pipeline: Pipeline, made: list[Call]) -> None:
        self._pipeline = pipeline
        self._made = made

    def begin(self, *args: Any, **facts: Any) -> Call:
        """Let a call in, as the pipeline does."""
        try:
            call = self._pipeline.begin(*args, **facts)
        except Exception as error:
            self._made.append(error.__dict__["trimtab"])
            raise
        self._made.append(call)
        return call

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pipeline, name)


class _OneAfterTheOther(RealCrew):
    """No threads: nothing in a test happens at a moment of its own. What is done beside a call is done before it returns."""

    free = False

    def start(self, work: Callable[[], object]) -> bool:
        """Do ``work`` at once."""
        work()
        return True


class _AtOnce(Callbacks):
    """Callbacks that are called before what they tell of returns."""

    def put(self, told: Told) -> None:
        """Have it told."""
        told.tell()
