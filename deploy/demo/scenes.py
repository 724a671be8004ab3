"""The scenes. Each hurts something, waits in front of the audience, and holds what it saw against what was promised."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from deploy.demo.screen import Finding, Screen
from deploy.demo.shopper import TIMEOUT
from deploy.demo.stage import WINDOW, Stage
from deploy.demo.traffic import Call, answers, failed, last_pick, percentile, shares

TICK = 0.1
# Calls that began before something happened have ended after this: the shopper's timeout and a little. Seconds.
AFTERMATH = TIMEOUT + 0.3
OUTAGE = 4.0

EVENNESS = 0.1
CRASH_LIMIT = 1.0
SILENCE_LIMIT = WINDOW + 1.0
RETURN_LIMIT = 4.0
START_LIMIT = 20.0
WELCOME_LIMIT = 1.0
RECOVERY_LIMIT = 5.0
CONFIG_LIMIT = 1.0

T = TypeVar("T")


class Show:
    """One scene while it is played: time passes, and the live line with it."""

    def __init__(self, stage: Stage, screen: Screen) -> None:
        self.stage = stage
        self._screen = screen
        self._mark = stage.traffic.mark()

    @property
    def calls(self) -> Sequence[Call]:
        """The calls of this scene."""
        return self.stage.traffic.since(self._mark)

    async def during(self, work: Awaitable[T]) -> T:
        """Let the audience watch while something is done."""
        task = asyncio.ensure_future(work)
        try:
            while not task.done():
                self.stage.check()
                self._screen.live(self.stage, self._mark)
                await asyncio.wait({task}, timeout=TICK)
            return task.result()
        finally:
            task.cancel()

    async def play(self, seconds: float) -> None:
        """Let the audience watch for a while."""
        await self.during(asyncio.sleep(seconds))

    async def until(self, condition: Callable[[], Awaitable[bool]], limit: float) -> float:
        """Let the audience watch until something is so; the seconds that it took, ``inf`` when it never was."""
        began = time.monotonic()
        try:
            await self.during(asyncio.wait_for(_come_true(condition), limit))
        except TimeoutError:
            return float("inf")
        return time.monotonic() - began


async def _come_true(condition: Callable[[], Awaitable[bool]]) -> None:
    while not await condition():  # noqa: ASYNC110 - what it asks of other processes sets no event here
        await asyncio.sleep(TICK)


async def spread(show: Show) -> list[Finding]:
    """Nothing is hurt yet."""
    await show.play(5.0)
    parts = shares(show.calls)
    times = f"p50 {percentile(show.calls, 0.5):.0f} ms, p99 {percentile(show.calls, 0.99):.0f} ms"
    fair = 1 / len(show.stage.instances)
    even = all(abs(parts.get(name, 0.0) - fair) <= EVENNESS for name in show.stage.instances)
    measured = f"{min(parts.values()):.0%} to {max(parts.values()):.0%} ({times})" if parts else "no call was answered"
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
    await welcome(show, await stage.start_instance())
    return findings


async def welcome(show: Show, name: str) -> float:
    """Wait for an instance that was started; the seconds from its registration to its first call."""

    async def registered() -> bool:
        return name in await show.stage.admin.healthy()

    async def answered() -> bool:
        return any(answers(show.calls, name))

    await show.until(registered, START_LIMIT)
    return await show.until(answered, START_LIMIT)


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
    took = await welcome(show, name)
    await show.play(1.0)
    settled = show.stage.traffic.mark()
    await show.play(3.0)
    part = shares(show.stage.traffic.since(settled)).get(name, 0.0)
    fair = 1 / len(show.stage.instances)
    return [
        within("it takes calls once it is registered", took, WELCOME_LIMIT),
        Finding(
            f"then it answers {fair:.0%} ± {EVENNESS * 100:.0f} points of the calls",
            f"{part:.0%}",
            abs(part - fair) <= EVENNESS,
        ),
        no_failures(show.calls),
    ]


async def control_plane_outage(show: Show) -> list[Finding]:
    """The only control plane is killed."""
    stage = show.stage
    before = await stage.admin.seats()
    await stage.kill_control_plane()
    await show.play(OUTAGE)
    await show.during(stage.start_control_plane())

    async def resumed() -> bool:
        return await stage.admin.sessions() == {seat.session for seat in before.values()}

    took = await show.until(resumed, RECOVERY_LIMIT)
    await show.play(AFTERMATH)
    return [
        no_failures(show.calls),
        within(f"once it is back, all {len(before)} sessions resume", took, RECOVERY_LIMIT),
        unmoved(before == await stage.admin.seats(), len(before)),
    ]


async def etcd_outage(show: Show) -> list[Finding]:
    """The only etcd is killed."""
    stage = show.stage
    before = await stage.admin.seats()
    await stage.kill_etcd()
    await show.play(OUTAGE)
    await show.during(stage.start_etcd())

    async def written() -> bool:
        return await stage.admin.publish("discount: 0\n")

    took = await show.until(written, RECOVERY_LIMIT)
    await show.play(AFTERMATH)
    return [
        no_failures(show.calls),
        within("once it is back, the next write is accepted", took, RECOVERY_LIMIT),
        unmoved(before == await stage.admin.seats(), len(before)),
    ]


async def configure(show: Show) -> list[Finding]:
    """A discount is published, then nonsense."""
    stage = show.stage
    await stage.admin.publish("discount: 0\n")
    await show.play(1.0)
    published = time.monotonic()
    accepted = await stage.admin.publish("discount: 25\n")
    await show.play(2.0)
    took = max(_since_discount(show.calls, name, published) for name in stage.up())
    await stage.admin.publish("discount: plenty\n")

    async def refused() -> bool:
        return len(await stage.admin.refusals()) == len(stage.up())

    refusal = await show.until(refused, CONFIG_LIMIT)
    nonsense = stage.traffic.mark()
    await show.play(1.0)
    sold = {call.discount for call in stage.traffic.since(nonsense) if call.discount is not None}
    return [
        within("every instance sells at the published discount", took if accepted else float("inf"), CONFIG_LIMIT),
        within("a wrong value is refused by every instance, and shown", refusal, CONFIG_LIMIT),
        Finding("the last good value stays", f"{', '.join(map(str, sorted(sold)))} % off", sold == {25}),
        no_failures(show.calls),
    ]


def _since_discount(calls: Sequence[Call], name: str, published: float) -> float:
    """When an instance sold at 25 % for the first time, in seconds; ``inf`` if never, or if it fell back."""
    orders = [call for call in answers(calls, name) if call.discount is not None]
    first = min((call.ended for call in orders if call.discount == 25), default=float("inf"))
    fell_back = any(call.began > first and call.discount != 25 for call in orders)
    return float("inf") if fell_back else first - published


# What is held against what was promised


def no_failures(calls: Sequence[Call]) -> Finding:
    """No call fails."""
    bad = failed(calls)
    return Finding("no call fails", f"{len(bad)} of {len(calls):,} failed", bool(calls) and not bad, reasons(bad))


def harm(calls: Sequence[Call], moment: float, limit: float) -> Finding:
    """Calls that were under way may fail; later ones may not."""
    bad = failed(calls)
    last = max((call.began - moment for call in bad), default=0.0)
    measured = f"{len(bad)} of {len(calls):,} failed" + (f", last begun at {max(0.0, last):.2f} s" if bad else "")
    late = [call for call in bad if call.began - moment > limit]
    return Finding(f"no call that begins {limit:g} s later fails", measured, not late, reasons(late))


def reasons(bad: Sequence[Call]) -> str:
    """What the shopper was told, the most frequent first."""
    counts = Counter(f"{call.error} ({call.tried[-1] if call.tried else 'nobody tried'})" for call in bad)
    return "; ".join(f"{count} × {error}" for error, count in counts.most_common(5))


def unpicked(which: str, calls: Sequence[Call], name: str, moment: float, limit: float) -> Finding:
    """Nobody picks an instance any more."""
    last = last_pick(calls, name, moment)
    return Finding(f"nobody picks {which} after {limit:g} s", f"last pick at {last:.2f} s", last <= limit)


def within(what: str, took: float, limit: float) -> Finding:
    """Something happens in time."""
    return Finding(f"{what}, in {limit:g} s", "never" if took == float("inf") else f"{took:.2f} s", took <= limit)


def unmoved(same: bool, count: int) -> Finding:
    """Nobody registered again: every instance has the session and the creation revision that it had."""
    measured = "same session, same creation revision" if same else "something registered again"
    return Finding(f"none of {count} instances registers again", measured, same)


@dataclass(frozen=True, slots=True)
class Scene:
    """``key`` names it on the command line."""

    key: str
    title: str
    what: str
    play: Callable[[Show], Awaitable[list[Finding]]]


SCENES = (
    Scene(
        "spread",
        "Load spreads evenly",
        "Nothing is hurt yet: the shopper's SDK picks an instance for every call.",
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
    Scene(
        "control-plane",
        "The control plane is killed",
        f"kill -9 of the only one, for {OUTAGE:.0f} s; then it is started again, with nothing in its memory.",
        control_plane_outage,
    ),
    Scene(
        "etcd",
        "etcd is killed",
        f"kill -9 of the only member, for {OUTAGE:.0f} s; then it is started again.",
        etcd_outage,
    ),
    Scene(
        "config",
        "Configuration changes live",
        "A discount of 25 % is published, and then `discount: plenty`.",
        configure,
    ),
)
