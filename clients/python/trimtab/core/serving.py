"""What the policies of a service ask of its own instances: their ``server`` sections, ready before a call comes in.

The twin of ``core.calling.rules`` for the other end of a call. What has a state is kept when a policy changes: the calls under
way and those that wait belong to the place in the documents whose section let them in, and go on under its new settings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import inf
from sys import maxsize
from typing import NamedTuple

from trimtab.core.backoff import Rng
from trimtab.core.limiting.adaptive import build_bulkhead
from trimtab.core.limiting.bulkhead import Bulkhead
from trimtab.core.limiting.keyed import Keyed
from trimtab.core.limiting.limiter import Limiter, build_limiter, may_go_on
from trimtab.core.limiting.shedding import Admission, Priority, Ticket
from trimtab.policy.effective import Chooser, Origin, forebears, layers, settle
from trimtab.policy.model import ServicePolicy
from trimtab.policy.sections import OFF, Limit, Server

NO_HEADERS: Mapping[str, str] = {}


class Arrival(NamedTuple):
    """What is known of a call that comes in. Header names in lower case; ``path`` is empty outside of HTTP.

    ``priority``: as its caller said it, empty: it said nothing. ``deadline``: when it must be over; inf: it may take its time.
    """

    method: str = ""
    path: str = ""
    headers: Mapping[str, str] = NO_HEADERS
    priority: str = ""
    deadline: float = inf


class Entrance:
    """One ``server`` section at work: a rate limit, and places with a queue; None where the section has none."""

    __slots__ = ("_key", "_keyed", "_limiter", "_settings", "admission")

    def __init__(self, settings: Server, rng: Rng) -> None:
        self._settings = settings
        self._limit(settings.limit)
        bulkhead = build_bulkhead(settings.concurrency, settings.adaptive, rng)
        self.admission = Admission(settings, bulkhead) if bulkhead is not None else None

    def change(self, settings: Server, rng: Rng, now: float) -> None:
        """Go on under other settings. What did not change goes on as it is, as a learned limit; so does what was let in."""
        before, self._settings = self._settings, settings
        if settings.limit != before.limit:
            limiter = self._limiter if self._keyed is None else self._keyed
            if limiter is not None and before.limit and settings.limit and may_go_on(before.limit, settings.limit):
                limiter.change(settings.limit, now)
            else:
                self._limit(settings.limit)
        bulkhead = None
        if (settings.concurrency, settings.adaptive) != (before.concurrency, before.adaptive):
            held = self.admission.bulkhead if self.admission is not None else None
            bulkhead = build_bulkhead(settings.concurrency, settings.adaptive, rng, held)
            if bulkhead is None:
                self._open()
                return
        if self.admission is not None:
            self.admission.change(settings, bulkhead)
        elif bulkhead is not None:
            self.admission = Admission(settings, bulkhead)

    def close(self) -> None:
        """The section is gone: whoever waits need not any more."""
        self._limit(None)
        self._open()

    def turn(self, call: Arrival, now: float) -> float:
        """Ask the rate limit, as ``Limiter.admit`` does."""
        if self._keyed is not None:
            return self._keyed.admit(self._key(call), now)
        return 0.0 if self._limiter is None else self._limiter.admit(now)

    def refund(self, call: Arrival, start: float, now: float) -> None:
        """A call that was to start at ``start`` never will."""
        if self._keyed is not None:
            self._keyed.refund(self._key(call), start, now)
        elif self._limiter is not None:
            self._limiter.refund(start, now)

    def _limit(self, limit: Limit | None) -> None:
        self._keyed: Keyed | None = None
        self._limiter: Limiter | None = None
        self._key: Callable[[Arrival], str] = _method
        if limit is None:
            return
        if limit.per == "service":
            self._limiter = build_limiter(limit)
            return
        self._keyed = Keyed(limit)
        if limit.key is not None:
            # A server sees no arguments: calls without the header share one limit.
            header = limit.key.header or ""
            self._key = lambda call: call.headers.get(header, "")

    def _open(self) -> None:
        if self.admission is not None:
            self.admission.change(self._settings, Bulkhead(maxsize))


class Door(NamedTuple):
    """What holds for a call: an entrance, None where nothing keeps it out, and its priority when its caller said none."""

    entrance: Entrance | None
    priority: Priority


class ServerRules:
    """The entrances of one service under one pair of policies. Not thread-safe by itself.

    ``idle``: no policy says anything of servers. ``needs_headers``: they matter to some rule. Routes for certain callers hold
    where calls are made: a server does not know its callers by name.
    """

    def __init__(self, service: ServicePolicy | None, namespace: ServicePolicy | None, rng: Rng) -> None:
        self._rng = rng
        self._layers = layers(service, namespace)
        self._chooser = Chooser(self._layers, caller="")
        self._entrances: dict[Origin, Entrance] = {}
        self._doors: dict[tuple[int, ...], Door] = {}
        said = [layer.sections.server for layer in self._layers]
        servers = [section for section in said if isinstance(section, Server)]
        self.idle = not servers
        self.needs_headers = self._chooser.needs_headers or any(
            server.limit is not None and server.limit.key is not None for server in servers
        )

    def door(self, call: Arrival) -> Door:
        """What holds for a call."""
        chosen = self._chooser.choose(call.method, call.path, call.headers)
        door = self._doors.get(chosen)
        if door is None:
            said = settle(self._layers[index] for index in chosen)
            server = said["server"]
            entrance = None if server.value is None else self._entrance(server.origin, server.value)
            door = self._doors[chosen] = Door(entrance, Priority[said["priority"].value.upper()])
        return door

    @property
    def bulkheads(self) -> dict[Origin, Bulkhead]:
        """What limits concurrency, by the place in the documents that says so."""
        admissions = {origin: entrance.admission for origin, entrance in self._entrances.items()}
        return {origin: admission.bulkhead for origin, admission in admissions.items() if admission is not None}

    def take_over(self, before: ServerRules, now: float) -> Sequence[Ticket]:
        """Take the place of the rules ``before``. Returns the tickets that have a place now, as ``Admission.start`` does."""
        settings = {layer.origin: layer.sections.server for layer in self._layers}
        now_at = {old: new for new, old in forebears(self._layers, before._layers).items()}
        started: list[Ticket] = []
        for place, entrance in before._entrances.items():
            origin = now_at.get(place)
            server = settings[origin] if origin is not None else None
            if origin is None or server is None or server is OFF:
                entrance.close()
            else:
                assert isinstance(server, Server)
                entrance.change(server, self._rng, now)
                self._entrances[origin] = entrance
            if entrance.admission is not None:
                started.extend(entrance.admission.start(now))
        return started

    def _entrance(self, origin: Origin, settings: Server) -> Entrance:
        entrance = self._entrances.get(origin)
        if entrance is None:
            entrance = self._entrances[origin] = Entrance(settings, self._rng)
        return entrance


def _method(call: Arrival) -> str:
    return call.method
