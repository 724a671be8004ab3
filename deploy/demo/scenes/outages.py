"""What carries the mesh goes away and comes back; configuration changes."""

from __future__ import annotations

import time
from collections.abc import Sequence

from deploy.demo.findings import Finding, no_failures, unmoved, within
from deploy.demo.show import AFTERMATH, Scene, Show
from deploy.demo.traffic import Call, answers

OUTAGE = 4.0
RECOVERY_LIMIT = 5.0
CONFIG_LIMIT = 1.0


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


SCENES = (
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
