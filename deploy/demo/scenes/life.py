"""Instances come, go, and fall silent."""

from __future__ import annotations

import time

from deploy.demo.findings import Finding, harm, no_failures, share_of, times, unpicked, within
from deploy.demo.show import AFTERMATH, Scene, Show
from deploy.demo.stage import WINDOW
from deploy.demo.traffic import answers, shares

EVENNESS = 0.1
CRASH_LIMIT = 1.0
SILENCE_LIMIT = WINDOW + 1.0
RETURN_LIMIT = 4.0
WELCOME_LIMIT = 1.0


async def spread(show: Show) -> list[Finding]:
    """Nothing is hurt yet."""
    await show.play(5.0)
    parts = shares(show.calls)
    fair = 1 / len(show.stage.instances)
    even = all(abs(parts.get(name, 0.0) - fair) <= EVENNESS for name in show.stage.instances)
    measured = (
        f"{min(parts.values()):.0%} to {max(parts.values()):.0%} ({times(show.calls)})"
        if parts
        else "no call was answered"
    )
    return [
        Finding(f"each instance answers {fair:.0%} ± {EVENNESS * 100:.0f} points of the calls", measured, even),
        no_failures(show.calls),
    ]


async def kill(show: Show) -> list[Finding]:
    """An instance crashes, and its supervisor starts another."""
    stage, victim = show.stage, show.stage.up()[1]
    await show.play(1.0)
    killed = time.monotonic()
    stage.kill(victim)
    await show.play(3.0)
    findings = [
        unpicked("a killed instance", show.calls, victim, killed, CRASH_LIMIT),
        harm(show.calls, killed, CRASH_LIMIT),
    ]
    stage.remove(victim)
    await show.welcome(await stage.start_instance())
    return findings


async def freeze(show: Show) -> list[Finding]:
    """An instance hangs: connected, and silent. Then it goes on."""
    stage, victim = show.stage, show.stage.up()[0]
    frozen = time.monotonic()
    stage.freeze(victim)

    async def given_up() -> bool:
        return victim not in await stage.admin.healthy()

    noticed = await show.until(given_up, SILENCE_LIMIT)
    await show.play(frozen + SILENCE_LIMIT + AFTERMATH - time.monotonic())
    calls = show.calls
    thawed = time.monotonic()
    stage.thaw(victim)

    async def back() -> bool:
        return any(call.began > thawed for call in answers(show.calls, victim))

    took = await show.until(back, RETURN_LIMIT)
    await show.play(AFTERMATH)
    return [
        within("the registry gives it up", noticed, SILENCE_LIMIT),
        unpicked("a silent instance", calls, victim, frozen, SILENCE_LIMIT),
        harm(calls, frozen, SILENCE_LIMIT),
        within("it takes calls again once it goes on", took, RETURN_LIMIT),
    ]


async def drain(show: Show) -> list[Finding]:
    """An operator takes an instance out and stops it."""
    stage, leaving = show.stage, show.stage.up()[0]
    drained = time.monotonic()
    await stage.drain(leaving)
    await show.play(1.5)
    status = await show.during(stage.terminate(leaving))
    await show.play(AFTERMATH)
    ended = Finding("it ends by itself, with status 0", f"status {status}", status == 0)
    return [no_failures(show.calls), unpicked("a drained instance", show.calls, leaving, drained, CRASH_LIMIT), ended]


async def grow(show: Show) -> list[Finding]:
    """One more instance."""
    name = await show.stage.start_instance()
    took = await show.welcome(name)
    await show.play(1.0)
    settled = show.stage.traffic.mark()
    await show.play(3.0)
    since, fair = show.stage.traffic.since(settled), 1 / len(show.stage.instances)
    return [
        within("it takes calls once it is registered", took, WELCOME_LIMIT),
        share_of("then it", name, since, fair, EVENNESS),
        no_failures(show.calls),
    ]


SCENES = (
    Scene(
        "spread",
        "Load spreads evenly",
        "Nothing is hurt yet: each shopper's SDK picks an instance for every call.",
        spread,
    ),
    Scene(
        "kill", "kill -9 of an instance", "It never knows, and tells nobody. Then its supervisor starts another.", kill
    ),
    Scene(
        "freeze",
        "SIGSTOP of an instance, and its return",
        "It stays connected and says nothing; then it goes on.",
        freeze,
    ),
    Scene(
        "drain",
        "An instance is drained and stopped",
        "An operator takes it out of traffic; then it gets SIGTERM.",
        drain,
    ),
    Scene("grow", "A new instance takes traffic", "It registers; nobody else is told anything.", grow),
)
