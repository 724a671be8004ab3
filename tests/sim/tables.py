"""What is compared with what: policies against loads and faults."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isinf

from tests.sim.world import Fault, Method, Outcomes, Rumour, World

BARE = "retry: off, outlier: off"
BUILT_IN = "default: {}"

ALGORITHMS = {
    "round robin": f"default: {{balance: round_robin, {BARE}}}",
    "P2C least request": f"default: {{balance: least_request, {BARE}}}",
    "P2C peak EWMA": f"default: {{balance: p2c, {BARE}}}",
    "P2C peak EWMA, errors not penalised": f"default: {{balance: {{algorithm: p2c, error_penalty: 0s}}, {BARE}}}",
    "built in, but round robin": "default: {balance: round_robin}",
    "built in": BUILT_IN,
}

# Impatient enough to hurt: a callee that takes longer than a quarter of a second gets each call four times.
_FOUR = "attempts: 4, on: [timeout, 503], backoff: 25ms..1s"
_EAGER = "timeout: {total: 1s, attempt: 250ms}, outlier: off"
_THROTTLED = f"{_EAGER}, retry: {{{_FOUR}, throttle: 10}}"
_BREAKER = "breaker: {open_when: 'failures >= 50% of 20 in 10s', open_for: 5s}"
_GRADIENT = "concurrency: {adaptive: gradient2}"
_QUEUE = "server: {concurrency: 4, queue: 16, wait: 100ms}"
WITHOUT_BUDGET = f"default: {{{_EAGER}, retry: {{{_FOUR}, budget: {{ratio: 100%, at_least: 1000}}}}}}"

STORMS = {
    "4 attempts, no budget": WITHOUT_BUDGET,
    "4 attempts, budget of 20 %": f"default: {{{_EAGER}, retry: {{{_FOUR}, budget: 20%}}}}",
    "4 attempts, gRPC's throttle": f"default: {{{_THROTTLED}}}",
    "… and a breaker": f"default: {{{_THROTTLED}, {_BREAKER}}}",
    "… and an adaptive limit in the client": f"default: {{{_THROTTLED}, {_BREAKER}, {_GRADIENT}}}",
    "4 attempts, throttle, short queues in the server": f"default: {{{_THROTTLED}, {_QUEUE}}}",
    "4 attempts, no budget, short queues in the server": f"{WITHOUT_BUDGET[:-1]}, {_QUEUE}}}",
    "built in": BUILT_IN,
    "built in, without ejection": "default: {outlier: off}",
    "built in, adaptive limit in the client": f"default: {{{_GRADIENT}}}",
    "built in, Google's throttle in the client": "default: {throttle: 2}",
    "built in, short queues in the server": f"default: {{{_QUEUE}}}",
    "built in, adaptive limit in the server": "default: {server: {adaptive: gradient2}}",
}

LIMITS = {
    "built in": BUILT_IN,
    "gradient2 in the client": f"default: {{{_GRADIENT}}}",
    "vegas in the client": "default: {concurrency: {adaptive: vegas}}",
    "aimd in the client": "default: {concurrency: {adaptive: aimd}}",
    "4 at a time and a queue of 16 in the server": f"default: {{{_QUEUE}}}",
    "gradient2 in the server": "default: {server: {adaptive: gradient2}}",
}
MIXED = (Method("Get", 0.010, 0.9), Method("Report", 0.500, 0.1))

EJECTIONS = {
    "round robin, no ejection": "default: {balance: round_robin, outlier: off}",
    "round robin, 5 in a row": "default: {balance: round_robin}",
    "P2C, no ejection": "default: {outlier: off}",
    "P2C, 5 in a row (built in)": BUILT_IN,
    "P2C, 5 in a row, success rate": "default: {outlier: {consecutive: 5, success_rate: {}}}",
}

PENALTIES = {
    "1 s (built in)": BUILT_IN,
    "100 ms": "default: {balance: {error_penalty: 100ms}}",
    "none: least request": "default: {balance: least_request}",
}

PANICS = {
    "panic: 0% (built in)": BUILT_IN,
    "panic: 50%": "default: {balance: {panic: 50%}}",
}

HALVED = Fault(3.0, 8.0)


def latency(outcomes: Outcomes) -> str:
    """p99 of all calls in milliseconds; where some failed, the same of those that went well, and their share."""
    told = _milliseconds(outcomes.percentile(0.99))
    return told if outcomes.ok == 1 else f"{told} ({_milliseconds(outcomes.good.percentile(0.99))}; {share(outcomes)})"


def _milliseconds(seconds: float) -> str:
    return "never" if isinf(seconds) else f"{seconds * 1e3:.0f}"


def share(outcomes: Outcomes) -> str:
    """Calls that went well."""
    return f"{outcomes.ok:.2%}".replace("%", " %")


def refused(outcomes: Outcomes) -> str:
    """Calls that did not go well, although everything is as it should be."""
    return f"{1 - outcomes.ok:.1%}".replace("%", " %")


def lost(outcomes: Outcomes) -> str:
    """How many calls did not go well."""
    return f"{sum(not ending.ok for ending in outcomes.endings):,}"


def served(outcomes: Outcomes) -> str:
    """Calls that went well of those that began during the fault."""
    return f"{outcomes.between(*HALVED).ok:.0%}".replace("%", " %")


def recovery(outcomes: Outcomes) -> str:
    """How long after the fault's end all was well again."""
    seconds = outcomes.recovered(HALVED.ends)
    return "never" if isinf(seconds) else f"{seconds:.1f} s"


def requests(outcomes: Outcomes) -> str:
    """Requests for each call."""
    return f"{outcomes.attempts / len(outcomes.endings):.2f}"


@dataclass(frozen=True)
class Column:
    """A world, and what is told of how it ends; the policy is the row's."""

    world: World
    cells: Mapping[str, Callable[[Outcomes], str]]


@dataclass(frozen=True)
class Table:
    """One comparison."""

    title: str
    policies: Mapping[str, str]
    columns: Sequence[Column]

    def lines(self, seed: int) -> Iterator[str]:
        """Markdown, each row as soon as it is known."""
        yield f"\n### {self.title}\n"
        names = [name for column in self.columns for name in column.cells]
        yield f"| | {' | '.join(names)} |"
        yield "|---|" + "---|" * len(names)
        for name, policy in self.policies.items():
            cells = []
            for column in self.columns:
                outcomes = replace(column.world, policy=policy, seed=seed).run()
                cells += [tell(outcomes) for tell in column.cells.values()]
            yield f"| {name} | {' | '.join(cells)} |"


def _balancing(clients: int) -> Table:
    world = World(load=0.5, seconds=20.0, clients=clients)
    return Table(
        f"Balancing: p99 in ms, {'one client' if clients == 1 else f'{clients} clients'}",
        ALGORITHMS,
        [
            Column(replace(world, load=0.9), {"90 % load": latency}),
            Column(replace(world, load=0.97), {"97 % load": latency}),
            Column(replace(world, slow=10.0), {"one endpoint 10 × slower, 50 %": latency}),
            Column(replace(world, failing=1.0, idempotent=False), {"one endpoint fails at once, 50 %": latency}),
        ],
    )


_STORM = World(load=0.85, seconds=30.0, clients=10, warm_up=0.0, fault=HALVED)
_NORMAL = World(load=0.8, seconds=20.0, clients=1, methods=MIXED, patience=15.0)
_EJECTING = World(load=0.5, seconds=40.0, clients=4, warm_up=0.0, idempotent=False)
_ERRORS = World(load=0.85, seconds=20.0, clients=2, idempotent=False)
_RUMOUR = World(load=0.6, seconds=12.0, clients=4)

TABLES = {
    "balancing": _balancing(1),
    "clients": _balancing(10),
    "storm": Table(
        "Retry storm: 85 % load of 10 clients, half of the capacity for 5 s",
        STORMS,
        [Column(_STORM, {"served meanwhile": served, "well again after": recovery, "requests per call": requests})],
    ),
    "limits": Table(
        "Calls refused or lost although nothing is wrong: one call in ten takes 500 ms, the others 10 ms",
        LIMITS,
        [
            Column(replace(_NORMAL, load=0.5), {"50 % load, one client": refused}),
            Column(_NORMAL, {"80 %": refused}),
            Column(replace(_NORMAL, servers=30), {"80 %, 30 servers": refused}),
            Column(replace(_NORMAL, clients=10), {"80 %, 10 clients": refused}),
            Column(
                World(load=0.2, seconds=20.0, clients=4, together=50),
                {"20 %, only 10 ms, 50 at the same time": refused},
            ),
        ],
    ),
    "ejection": Table(
        "Ejection: calls lost of 80,000 that must not be sent twice, and storms as above",
        EJECTIONS,
        [
            Column(replace(_EJECTING, failing=1.0), {"one of 10 fails": lost}),
            Column(replace(_EJECTING, slow=1e9), {"one of 10 hangs": lost}),
            Column(
                replace(_EJECTING, failing=1.0, servers=2, load=0.3, seconds=333.0), {"one of 2 fails, 30 % load": lost}
            ),
            Column(replace(_STORM, servers=2, clients=4, idempotent=False), {"storm, 2 servers: well after": recovery}),
            Column(replace(_STORM, servers=4, clients=4, idempotent=False), {"4 servers": recovery}),
            Column(replace(_STORM, idempotent=False), {"10 servers": recovery}),
        ],
    ),
    "penalty": Table(
        "Penalty for an error: p99 in ms",
        PENALTIES,
        [
            Column(replace(_ERRORS, errors=0.001), {"1 error in 1,000 everywhere, 85 % load": latency}),
            Column(replace(_ERRORS, errors=0.01), {"1 in 100, 85 %": latency}),
            Column(replace(_ERRORS, errors=0.001, load=0.5), {"1 in 1,000, 50 %": latency}),
            Column(replace(_ERRORS, failing=1.0, load=0.5), {"one endpoint fails at once, 50 %": latency}),
        ],
    ),
    "panic": Table(
        "Six of 10 endpoints are told to be unhealthy; 60 % load, 35 % where they are down: calls that went well",
        PANICS,
        [
            Column(replace(_RUMOUR, rumour=Rumour(6, down=False)), {"a rumour": share}),
            Column(replace(_RUMOUR, rumour=Rumour(6, down=True), load=0.35), {"true": share}),
            Column(replace(_RUMOUR, rumour=Rumour(6, down=False, guarded=True)), {"a rumour, guarded": share}),
            Column(replace(_RUMOUR, rumour=Rumour(6, down=True, guarded=True), load=0.35), {"true, guarded": share}),
        ],
    ),
}
