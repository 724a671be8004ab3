"""Instances that are up, say that they are well, and are not: callers find out by themselves."""

from __future__ import annotations

import time
from collections.abc import Sequence

from deploy.demo.ailment import SLOWNESS, Ailment
from deploy.demo.findings import Finding, harm, no_failures, share_of, times, unpicked, within
from deploy.demo.show import Scene, Show
from deploy.demo.stage import SHOPPERS
from deploy.demo.traffic import Call, answers, quantile, refused, shares, stood_in, under

EVENNESS = 0.1
EJECTION = 4.0  # as eject.yaml has it
EJECT_LIMIT = 2.0
FORGIVE_LIMIT = 5.0
OPEN_LIMIT = 4.0
CLOSE_LIMIT = 5.0
# Of the calls that find a circuit open at most this share goes through, to try.
PROBES = 0.15


async def eject(show: Show) -> list[Finding]:
    """An instance fails every call, and goes on to heartbeat."""
    stage, victim = show.stage, show.stage.up()[0]
    await show.apply("eject")
    await show.play(1.0)
    sick = time.monotonic()
    stage.ail(Ailment.FAILING, victim)
    # Up to the end of the first ejection: then it is tried again.
    await show.play(EJECTION - 0.5)
    calls, healthy = show.calls, victim in await stage.admin.healthy()
    cured = time.monotonic()
    stage.cure()

    async def forgiven() -> bool:
        return {call.shopper for call in answers(show.calls, victim) if call.began > cured} == set(SHOPPERS)

    took = await show.until(forgiven, FORGIVE_LIMIT)
    await show.play(1.0)
    return [
        unpicked("a failing instance", calls, victim, sick, EJECT_LIMIT),
        harm(calls, sick, EJECT_LIMIT),
        Finding("nobody told them: the registry hears its heartbeats", "healthy" if healthy else "unhealthy", healthy),
        within("once cured, every shopper calls it again by itself", took, FORGIVE_LIMIT),
    ]


async def slow(show: Show) -> list[Finding]:
    """An instance answers well, and late."""
    stage, victim = show.stage, show.stage.up()[0]
    stage.ail(Ailment.SLOW, victim)
    blind = await _sample_under(show, "round-robin", 200)
    seeing = await _sample_under(show, "p2c", 300)
    stage.cure()
    fair = 1 / len(stage.instances)
    evenly = share_of("by round_robin, which looks at nothing, it", victim, blind, fair, EVENNESS)
    part = shares(seeing).get(victim, 0.0)
    return [
        evenly._replace(measured=f"{evenly.measured} ({times(blind)})"),
        Finding(
            f"by p2c, less than {fair / 3:.0%}", f"{part:.1%} of {len(seeing):,} ({times(seeing)})", part < fair / 3
        ),
        no_failures(show.calls),
    ]


async def _sample_under(show: Show, policy: str, count: int) -> Sequence[Call]:
    applied = await show.apply(policy)
    await show.play(1.0)
    return under(await show.sample(count), applied.revision)


async def breaker(show: Show) -> list[Finding]:
    """Every instance fails every call; after some seconds they are well again."""
    stage = show.stage
    applied = await show.apply("breaker")
    # The good answers that are kept for worse times.
    await show.play(1.0)
    stage.ail(Ailment.FAILING, *stage.up())

    async def open_everywhere() -> bool:
        return (await stage.admin.breakers()).count("OPEN") == len(SHOPPERS)

    async def closed() -> bool:
        return set(await stage.admin.breakers()) <= {"CLOSED"}

    opened = await show.until(open_everywhere, OPEN_LIMIT)
    broken = time.monotonic()
    await show.enter("get", "breakers", "orders")
    await show.play(broken + 4.0 - time.monotonic())
    meanwhile = [call for call in show.calls if call.began > broken]
    cured = time.monotonic()
    stage.cure()
    took = await show.until(closed, CLOSE_LIMIT)
    well = time.monotonic()
    await show.play(1.0)
    catalogue = [call for call in meanwhile if call.what == "catalogue"]
    cached = [call for call in stood_in(catalogue) if call.fallback == "cache" and call.age > 0]
    oldest = max((call.age for call in cached), default=0.0)
    tried = sum(bool(call.tried) for call in meanwhile)
    waits = quantile([(call.ended - call.began) * 1000 for call in refused(meanwhile)], 0.5)
    return [
        within("the circuit of every shopper opens, and the operator sees it", opened, OPEN_LIMIT),
        Finding(
            f"while it is open, at most {PROBES:.0%} of the calls go through, to try",
            f"{tried} of {len(meanwhile):,}; orders are refused within {waits:.1f} ms (median)",
            0 < tried <= PROBES * len(meanwhile),
        ),
        Finding(
            "the catalogue is still answered, from the cache, with its age",
            f"{len(cached)} of {len(catalogue)}, up to {oldest:.1f} s old",
            len(cached) == len(catalogue) > 0 and oldest <= cured - applied.entered,
        ),
        within("once they are well, probes find out, and all circuits close", took, CLOSE_LIMIT),
        no_failures([call for call in show.calls if call.began > well]),
    ]


SCENES = (
    Scene(
        "eject",
        "An instance fails, and nobody is told",
        "It answers every call with 500, and goes on to heartbeat. Its callers leave it alone; then it is cured.",
        eject,
    ),
    Scene(
        "slow",
        "A slow instance gets less",
        f"It takes {SLOWNESS * 1000:.0f} ms longer for every call; no call fails, no timeout passes.",
        slow,
    ),
    Scene(
        "breaker",
        "A circuit opens, the catalogue comes from a cache, and it closes again",
        "Every instance answers every call with 500. Customers cannot order, but may look; then all is well again.",
        breaker,
    ),
)
