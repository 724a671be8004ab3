"""Some servers, some clients, calls at random times, and what became of them."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import ceil, inf
from random import Random
from textwrap import indent
from typing import NamedTuple

from trimtab.core.endpoints import Endpoint, Health, ServiceState
from trimtab.policy.model import ServicePolicy
from trimtab.policy.reading import read
from trimtab.policy.sections import Server as ServerSettings

from tests.sim.client import SERVICE, Client, Ending
from tests.sim.server import WORKERS, Server
from tests.sim.timeline import Timeline

SERVICE_TIME = 0.010


class Method(NamedTuple):
    """Calls of one kind: what they take a server on average in seconds, and their share of all calls."""

    name: str
    work: float
    share: float


class Fault(NamedTuple):
    """From ``begins`` to ``ends``, every server has only half of its workers."""

    begins: float
    ends: float


class Rumour(NamedTuple):
    """The first ``count`` servers are told to be unhealthy, and are ``down`` or not.

    ``guarded``: the control plane does not believe it, and tells clients that they are suspect.
    """

    count: int
    down: bool
    guarded: bool = False


NO_RUMOUR = Rumour(0, down=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A simulation. ``policy``: the ``spec`` of a document. ``load``: share of all servers' capacity. Times in seconds.

    Arrivals are Poisson and do not wait for answers; ``together`` of them come at the same moment. ``patience``: when a
    caller gives up. ``slow``: by how much the first server is slower than the others; ``failing``: the share of calls that
    it fails at once; ``errors``: the share that every server does. ``rumour``: what clients are told of servers' health.
    Calls that began in ``warm_up`` do not count.
    """

    load: float
    seconds: float
    policy: str = "default: {}"
    seed: int = 1
    warm_up: float = 2.0
    clients: int = 1
    servers: int = 10
    methods: Sequence[Method] = (Method("Get", SERVICE_TIME, 1.0),)
    patience: float = 1.0
    idempotent: bool = True
    slow: float = 1.0
    failing: float = 0.0
    errors: float = 0.0
    together: int = 1
    fault: Fault | None = None
    rumour: Rumour = NO_RUMOUR

    def run(self) -> Outcomes:
        """Live through it. The same world always ends the same."""
        timeline = Timeline()
        chance = Random(self.seed)
        policy = self._document()
        settings = policy.default.server
        shedding = settings if isinstance(settings, ServerSettings) else None
        servers = {f"s{n}": Server(timeline, Random(chance.random()), shedding) for n in range(self.servers)}
        for server in servers.values():
            server.failing = self.errors
        first, *_ = servers.values()
        first.slowness, first.failing = self.slow, max(self.failing, self.errors)
        for server in list(servers.values())[: self.rumour.count]:
            server.down = self.rumour.down
        state = self._state(servers)
        if self.fault is not None:
            for server in servers.values():
                timeline.after(self.fault.begins, server.resize, WORKERS // 2)
                timeline.after(self.fault.ends, server.resize, WORKERS)
        clients = [Client(timeline, servers, state, policy, Random(chance.random())) for _ in range(self.clients)]
        for client in clients:
            self._arrive(timeline, client, Random(chance.random()))
        timeline.run()
        endings = [ending for client in clients for ending in client.endings if ending.began >= self.warm_up]
        return Outcomes(endings, sum(server.taken for server in servers.values()))

    def _arrive(self, timeline: Timeline, client: Client, chance: Random) -> None:
        """Let calls of one client come in."""
        mean = sum(method.work * method.share for method in self.methods)
        rate = self.load * self.servers * WORKERS / mean / self.clients / self.together
        up_to = list(accumulate(method.share for method in self.methods))
        last = len(up_to) - 1

        def arrive() -> None:
            for _ in range(self.together):
                method = self.methods[bisect(up_to, chance.random(), 0, last)]
                client.call(method.name, method.work, self.patience, self.idempotent)
            if timeline.now < self.seconds:
                timeline.after(chance.expovariate(rate), arrive)

        timeline.after(chance.expovariate(rate), arrive)

    def _state(self, servers: Mapping[str, Server]) -> ServiceState:
        """What clients are told of the servers."""
        doubt = Health.SUSPECT if self.rumour.guarded else Health.UNHEALTHY
        known = {
            id_: Endpoint(id_, id_, 80, 100, doubt if number < self.rumour.count else Health.HEALTHY, "", {})
            for number, id_ in enumerate(servers)
        }
        healthy = {id_: endpoint for id_, endpoint in known.items() if endpoint.health == Health.HEALTHY}
        suspect = {id_: endpoint for id_, endpoint in known.items() if endpoint.health == Health.SUSPECT}
        return ServiceState(SERVICE, 1, 1, known, healthy, suspect, protected=self.rumour.guarded)

    def _document(self) -> ServicePolicy:
        return read(f"""
apiVersion: trimtab/v1
kind: ServicePolicy
metadata: {{name: orders, namespace: default}}
spec:
{indent(self.policy, "  ")}
""")


class Outcomes:
    """What became of the calls of a simulation. ``attempts``: requests that came to the servers."""

    def __init__(self, endings: Sequence[Ending], attempts: int) -> None:
        self.endings = endings
        self.attempts = attempts

    def between(self, begins: float, ends: float) -> Outcomes:
        """The calls that began then."""
        return Outcomes([e for e in self.endings if begins <= e.began < ends], self.attempts)

    @property
    def ok(self) -> float:
        """Share of the calls that were answered well."""
        return sum(e.ok for e in self.endings) / len(self.endings)

    @property
    def refused(self) -> float:
        """Share of the calls that a policy kept from being sent."""
        return sum(bool(e.refused) for e in self.endings) / len(self.endings)

    @property
    def good(self) -> Outcomes:
        """The calls that were answered well."""
        return Outcomes([e for e in self.endings if e.ok], self.attempts)

    def percentile(self, share: float) -> float:
        """Nearest rank of the seconds that calls took; inf for those that failed: what they asked for never came."""
        ordered = sorted(e.seconds if e.ok else inf for e in self.endings)
        return ordered[ceil(share * len(ordered)) - 1]

    def recovered(self, since: float, step: float = 0.5, least: float = 0.99) -> float:
        """Seconds after ``since`` from which on at least ``least`` of the calls of every step went well; inf: never."""
        steps: dict[int, list[bool]] = {}
        for e in self.endings:
            if e.began >= since:
                steps.setdefault(int((e.began - since) / step), []).append(e.ok)
        bad = [number for number, oks in steps.items() if sum(oks) < least * len(oks)]
        if not bad:
            return 0.0
        return inf if max(bad) == max(steps) else (max(bad) + 1) * step
