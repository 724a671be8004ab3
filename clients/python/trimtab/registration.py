"""A registered instance, as its owner holds it."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout

from trimtab.engine import Engine
from trimtab.enrolment import Enrolment, State, state_name, state_number
from trimtab.errors import Refused
from trimtab.v1.types_pb2 import Instance


class Standing:
    """What is known of one registration. What its owner says is kept true: a lost session registers it again as it was last."""

    def __init__(self, engine: Engine, enrolment: Enrolment) -> None:
        self._engine = engine
        self._enrolment = enrolment

    @property
    def id(self) -> str:
        """The instance's id as stored, empty until then."""
        return self._enrolment.id

    @property
    def service(self) -> str:
        """``NAMESPACE/SERVICE``."""
        return f"{self._enrolment.wanted.namespace}/{self._enrolment.wanted.service}"

    @property
    def state(self) -> str:
        """What the instance says of itself: starting, serving, draining or unhealthy."""
        return state_name(self._enrolment.wanted.state)

    @property
    def registered(self) -> bool:
        """It is stored, as far as this process knows."""
        return self._enrolment.registered

    @property
    def error(self) -> Refused | None:
        """The server's last refusal, None when it accepted since."""
        return self._enrolment.error

    def _change(
        self, weight: int | None, zone: str | None, metadata: Mapping[str, str] | None, state: State | None
    ) -> Future[None]:
        wanted = Instance()
        wanted.CopyFrom(self._enrolment.wanted)
        if weight is not None:
            wanted.weight = weight
        if zone is not None:
            wanted.zone = zone
        if metadata is not None:
            wanted.metadata.clear()
            wanted.metadata.update(metadata)
        if state is not None:
            wanted.state = state_number(state)
        return self._engine.amend(self._enrolment, wanted)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._enrolment.label} {self.state}>"


class Registration(Standing):
    """One registered instance, for programs with threads. Every method may be called from any of them.

    Methods raise Refused, or NotConnected when nobody answers within ``timeout`` seconds: what was asked for stays wanted and
    is sent as soon as a server is there. ``wait=False`` returns at once.
    """

    def ready(self, *, wait: bool = True, timeout: float = 10.0) -> None:
        """Take calls from now on."""
        self.update(state="serving", wait=wait, timeout=timeout)

    def drain(self, *, wait: bool = True, timeout: float = 10.0) -> None:
        """Get no new calls from now on; go on with those that are here."""
        self.update(state="draining", wait=wait, timeout=timeout)

    def unhealthy(self, *, wait: bool = True, timeout: float = 10.0) -> None:
        """Say that the instance's own health check fails."""
        self.update(state="unhealthy", wait=wait, timeout=timeout)

    def update(
        self,
        *,
        weight: int | None = None,
        zone: str | None = None,
        metadata: Mapping[str, str] | None = None,
        state: State | None = None,
        wait: bool = True,
        timeout: float = 10.0,
    ) -> None:
        """Change what the instance reports of itself. None leaves a field as it is."""
        self._await(self._change(weight, zone, metadata, state), wait, timeout)

    def deregister(self, *, wait: bool = True, timeout: float = 10.0) -> None:
        """Take the instance away. Does nothing when it is away, or the Mesh closed."""
        self._await(self._engine.amend(self._enrolment, None), wait, timeout)

    def _await(self, future: Future[None], wait: bool, timeout: float) -> None:
        if not wait:
            return
        try:
            future.result(timeout)
        except FutureTimeout:
            raise self._engine.unanswered(self._enrolment, timeout) from None
