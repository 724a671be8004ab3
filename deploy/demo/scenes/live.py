"""Policies change in running callers: `trimtab apply`, and the next call goes by it."""

from __future__ import annotations

import time
from collections.abc import Sequence

from deploy.demo.ailment import SLOWNESS, Ailment
from deploy.demo.findings import Finding, in_force, no_failures, reasons, share_of
from deploy.demo.show import Scene, Show
from deploy.demo.stage import SHOPPERS
from deploy.demo.traffic import REPORT_LAG, Call, failed, quantile, refused, under

# Until a burst is used up, connections are made, a newcomer is known; seconds.
SETTLING = 0.7
LIMIT_WINDOW = 3.0
# How far what passes a limit of so many calls may be from it, as a share: the calls themselves do not come evenly.
LIMIT_MARGIN = 0.15
PATIENCE = 0.1  # as timeout-100ms.yaml has it
CANARY_MARGIN = 0.05
HALF_MARGIN = 0.1


async def limit(show: Show) -> list[Finding]:
    """A rate limit is put in force, and then another."""
    findings: list[Finding] = []
    for rate in (10, 20):
        before = len(show.calls)
        applied = await show.apply(f"limit-{rate}")
        await show.play(SETTLING)
        began = time.monotonic()
        await show.play(LIMIT_WINDOW + REPORT_LAG)
        calls = show.calls[before:]
        findings.append(in_force(f"{rate}/s holds", calls, applied, SHOPPERS))
        findings.append(_passed(calls, began, rate, show.stage.rate / len(SHOPPERS)))
    limited, before = refused(show.calls), len(show.calls)
    withdrawn = await show.withdraw()
    await show.play(SETTLING)
    free = in_force("then no limit holds", show.calls[before:], withdrawn, SHOPPERS)
    waits = [(call.ended - call.began) * 1000 for call in limited]
    others = [call for call in failed(show.calls) if call.refused != "limit" or call.tried]
    told = f"{len(limited):,} refused, within {quantile(waits, 0.5):.1f} ms (median); {len(others)} failed otherwise"
    unsent = Finding("all else is refused before it is sent", told, bool(limited) and not others, reasons(others))
    return [*findings, unsent, free]


def _passed(calls: Sequence[Call], began: float, rate: float, offered: float) -> Finding:
    """What each shopper got through in a second, from ``began`` on."""
    seen = [call for call in calls if began < call.began <= began + LIMIT_WINDOW and not call.refused]
    rates = [sum(call.shopper == shopper for call in seen) / LIMIT_WINDOW for shopper in SHOPPERS]
    expected = min(rate, offered)
    kept = all(abs(got - expected) <= LIMIT_MARGIN * expected for got in rates)
    measured = ", ".join(f"{got:.1f}" for got in rates) + f" of {offered:.1f}/s"
    return Finding(f"each shopper gets {expected:g}/s ± {LIMIT_MARGIN:.0%} through", measured, kept)


async def timeout(show: Show) -> list[Finding]:
    """Every instance is slow; callers wait for less than it takes, and then for more."""
    stage = show.stage
    stage.ail(Ailment.SLOW, *stage.up())
    short, hasty = await _watched(show, "timeout-100ms", 150)
    long, patient = await _watched(show, "timeout-1s", 150)
    stage.cure()
    waits = [(call.ended - call.began) * 1000 for call in hasty]
    late = [call for call in hasty if "DeadlineExceeded" not in call.error]
    return [
        short,
        Finding(
            f"every call is given up after {PATIENCE * 1000:.0f} ms",
            f"{len(hasty) - len(late)} of {len(hasty)}, after {quantile(waits, 0.5):.0f} ms (median), "
            f"{quantile(waits, 0.95):.0f} ms (p95)",
            bool(hasty) and not late and PATIENCE <= quantile(waits, 0.5) / 1000 < SLOWNESS,
            reasons(late),
        ),
        long,
        no_failures(patient),
    ]


async def canary(show: Show) -> list[Finding]:
    """A new version gets a tenth of the calls, and then half."""
    cautious = await show.apply("canary-10")
    name = await show.stage.start_instance("v2")
    await show.welcome(name)
    await show.play(SETTLING)
    tenth = under(await show.sample(600), cautious.revision)
    swift, half = await _watched(show, "canary-50", 400)
    return [
        share_of("at 10 %, version 2", name, tenth, 0.10, CANARY_MARGIN),
        swift,
        share_of("at 50 %, version 2", name, half, 0.50, HALF_MARGIN),
        no_failures(show.calls),
    ]


async def _watched(show: Show, policy: str, count: int) -> tuple[Finding, Sequence[Call]]:
    """Apply a policy, and watch so many calls: whether it is in force in time, and those of the calls that it held for."""
    before = len(show.calls)
    applied = await show.apply(policy)
    await show.play(SETTLING)
    calls = await show.sample(count)
    return in_force(f"{policy}.yaml holds", show.calls[before:], applied, SHOPPERS), under(calls, applied.revision)


SCENES = (
    Scene(
        "limit",
        "A rate limit changes live",
        "10 calls a second for each shopper, then 20, then as many as they like.",
        limit,
    ),
    Scene(
        "timeout",
        "A timeout changes live",
        f"Every instance takes {SLOWNESS * 1000:.0f} ms longer. Shoppers are to wait for 100 ms, and then for 1 s.",
        timeout,
    ),
    Scene(
        "canary",
        "A new version takes 10 %, then 50 %",
        "An instance of version 2 joins those of version 1; the split is a line in a policy.",
        canary,
    ),
)
