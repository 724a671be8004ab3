"""What this process registers: each registration's owner side, and who waits for it to be stored."""

from __future__ import annotations

import logging
import socket
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Literal, get_args

from trimtab.connection import refused
from trimtab.core.session import Denied, Event, Lost, Session, Step, Stored
from trimtab.errors import Refused, SettingsInvalid
from trimtab.v1.types_pb2 import (
    INSTANCE_STATE_DRAINING,
    INSTANCE_STATE_SERVING,
    INSTANCE_STATE_STARTING,
    INSTANCE_STATE_UNHEALTHY,
    Instance,
    InstanceState,
)

logger = logging.getLogger("trimtab")

State = Literal["starting", "serving", "draining", "unhealthy"]
_STATES: Mapping[str, InstanceState] = {
    "starting": INSTANCE_STATE_STARTING,
    "serving": INSTANCE_STATE_SERVING,
    "draining": INSTANCE_STATE_DRAINING,
    "unhealthy": INSTANCE_STATE_UNHEALTHY,
}


def describe(
    namespace: str,
    service: str,
    port: int,
    *,
    address: str,
    id_: str,
    weight: int,
    zone: str,
    metadata: Mapping[str, str],
    state: str,
) -> Instance:
    """Return the instance as the wire has it. Raises SettingsInvalid for what it cannot carry; the server judges the rest."""
    if not isinstance(port, int) or not 0 < port < 65536:
        raise SettingsInvalid(f"port is {port!r}", hint="1 to 65535")
    if not isinstance(weight, int) or not 0 <= weight <= 65535:
        raise SettingsInvalid(f"weight is {weight!r}", hint="1 to 65535, or 0 for the default")
    return Instance(
        namespace=namespace,
        service=service,
        id=id_,
        address=address,
        port=port,
        weight=weight,
        zone=zone,
        metadata=dict(metadata),
        state=state_number(state),
    )


def state_number(state: str) -> InstanceState:
    """Return the wire's number of a state's name. Raises SettingsInvalid for any other word."""
    if state not in _STATES:
        raise SettingsInvalid(f"state is {state!r}", hint=f"one of {', '.join(get_args(State))}")
    return _STATES[state]


def state_name(number: int) -> str:
    """Return the name of a state."""
    return next((name for name, state in _STATES.items() if state == number), "unspecified")


def own_address(server: str) -> str:
    """Return the local address of the route to ``server`` (HOST:PORT): what others there can dial. Sends nothing.

    Raises SettingsInvalid when there is no route.
    """
    host, _, port = server.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_DGRAM)
        family, kind, protocol, _, target = found[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(target)
            return str(probe.getsockname()[0])
    except OSError as error:
        raise SettingsInvalid(
            f"no route to {server}, so no address of its own: {error}", hint="give address="
        ) from error


class Enrolment:
    """One registration. Public fields are written by the stream's thread; ``wanted`` by its owner."""

    def __init__(self, wanted: Instance) -> None:
        self.wanted = wanted
        self.id = ""
        self.registered = False
        self.ended = False
        self.error: Refused | None = None
        self.key = 0
        self._waiting: list[tuple[int, Future[None]]] = []

    @property
    def label(self) -> str:
        """The instance, for people."""
        where = self.id or f"{self.wanted.address}:{self.wanted.port}"
        return f"{self.wanted.namespace}/{self.wanted.service} {where}"

    def begin(self, session: Session, now: float, future: Future[None]) -> Step:
        """Want it registered."""
        self.key, step = session.register(self.wanted, now)
        self._waiting.append((1, future))
        return step

    def change(self, session: Session, now: float, instance: Instance | None, future: Future[None]) -> Step:
        """Want it otherwise, or (None) gone."""
        if self.ended:
            if instance is None:
                future.set_result(None)
            else:
                gone = Refused("instance.not_found", f"{self.label} is no longer registered", hint="register it anew")
                future.set_exception(gone)
            return Step()
        generation, step = session.change(self.key, instance, now)
        self._waiting.append((generation, future))
        self.ended = instance is None
        return step

    def stored(self, event: Stored) -> None:
        """Up to a generation everything is stored."""
        self.id = event.instance_id or self.id
        self.error = None
        self.registered = not self.ended
        for future in self._take(event.generation):
            future.set_result(None)

    def denied(self, event: Denied, session: Session, now: float) -> Step:
        """The server refused a change: whoever waits for it is told; without anybody it is tried again at times."""
        self.error = error = refused(event.error)
        if error.retryable:
            logger.info("registration of %s: %s; trying again", self.label, error)
            return Step()
        waiting = self._take(event.generation)
        for future in waiting:
            future.set_exception(error)
        if waiting or error.code.startswith("request."):
            logger.warning("registration of %s is refused: %s", self.label, error)
            self.ended = self.ended or not self.registered
            return session.withdraw(self.key, now)
        logger.warning("registration of %s is refused, trying again: %s", self.label, error)
        return Step()

    def lost(self) -> None:
        """The session ended: not registered until it is registered again."""
        self.registered = False

    @property
    def awaited(self) -> bool:
        """Somebody waits for an answer."""
        return bool(self._waiting)

    def _take(self, generation: int) -> list[Future[None]]:
        due = [future for until, future in self._waiting if until <= generation]
        self._waiting = [w for w in self._waiting if w[0] > generation]
        return [future for future in due if future.set_running_or_notify_cancel()]


class Enrolments:
    """All registrations of this process, by their key. Used by the stream's thread alone."""

    def __init__(self) -> None:
        self._enrolments: dict[int, Enrolment] = {}

    def begin(self, enrolment: Enrolment, session: Session, now: float, future: Future[None]) -> Step:
        """Want one more."""
        step = enrolment.begin(session, now, future)
        self._enrolments[enrolment.key] = enrolment
        return step

    def disown(self) -> None:
        """Leave all of them to the parent, in a forked child."""
        for enrolment in self._enrolments.values():
            enrolment.ended, enrolment.registered = True, False

    def happened(self, event: Event, session: Session, now: float) -> Step:
        """Take an event of the protocol."""
        match event:
            case Stored(key):
                enrolment = self._enrolments.get(key)
                if enrolment is not None:
                    enrolment.stored(event)
                    if enrolment.ended and not enrolment.awaited:
                        del self._enrolments[key]
            case Denied(key) if key in self._enrolments:
                return self._enrolments[key].denied(event, session, now)
            case Lost():
                for enrolment in self._enrolments.values():
                    enrolment.lost()
                if self._enrolments:
                    logger.warning("the session was lost; registering %d instances again", len(self._enrolments))
        return Step()
