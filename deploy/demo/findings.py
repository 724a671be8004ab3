"""What was seen, held against what was promised."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from math import isinf
from typing import NamedTuple

from deploy.demo.traffic import Call, failed, last_pick, percentile, shares

# From the answer of `trimtab apply` until no call begins under an older policy, in seconds.
POLICY_LIMIT = 1.0


class Finding(NamedTuple):
    """A promise and what became of it; ``why`` helps whoever looks for the reason of a broken one."""

    promise: str
    measured: str
    kept: bool
    why: str = ""


class Applied(NamedTuple):
    """A policy that was applied: its revision, when the command was entered, and when it answered (``time.monotonic``).

    ``revision`` 0: it was withdrawn, and what is built in holds.
    """

    revision: int
    entered: float
    answered: float


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
    """What the shoppers were told, the most frequent first."""
    counts = Counter(f"{call.error} ({call.tried[-1] if call.tried else 'nobody tried'})" for call in bad)
    return "; ".join(f"{count} × {error}" for error, count in counts.most_common(5))


def unpicked(which: str, calls: Sequence[Call], name: str, moment: float, limit: float) -> Finding:
    """Nobody picks an instance any more."""
    last = last_pick(calls, name, moment)
    return Finding(f"nobody picks {which} after {limit:g} s", f"last pick at {last:.2f} s", last <= limit)


def within(what: str, took: float, limit: float) -> Finding:
    """Something happens in time."""
    return Finding(f"{what}, in {limit:g} s", "never" if isinf(took) else f"{took:.2f} s", took <= limit)


def unmoved(same: bool, count: int) -> Finding:
    """Nobody registered again: every instance has the session and the creation revision that it had."""
    measured = "same session, same creation revision" if same else "something registered again"
    return Finding(f"none of {count} instances registers again", measured, same)


def share_of(who: str, name: str, calls: Sequence[Call], fair: float, margin: float) -> Finding:
    """An instance gets its share of the answers, give or take ``margin``; 0 to 1."""
    part, points = shares(calls).get(name, 0.0), f"{margin * 100:.0f} points"
    measured = f"{part:.1%} of {len(calls):,}"
    return Finding(f"{who} answers {fair:.0%} ± {points} of the calls", measured, abs(part - fair) <= margin)


def in_force(what: str, calls: Sequence[Call], applied: Applied, shoppers: Collection[str]) -> Finding:
    """A policy holds for every call of every shopper, soon after the command's answer. ``calls``: up to the next policy."""
    older = (call.began for call in calls if call.policy != applied.revision)
    last = max((began for began in older if began > applied.entered), default=applied.entered)
    heard = {call.shopper for call in calls if call.policy == applied.revision}
    promise = f"{what} in all {len(shoppers)} shoppers, within {POLICY_LIMIT:g} s of the command's answer"
    if not heard.issuperset(shoppers):
        return Finding(promise, f"never in {', '.join(sorted(set(shoppers) - heard))}", False)
    measured = f"{last - applied.entered:.2f} s after Enter; the answer took {applied.answered - applied.entered:.2f} s"
    return Finding(promise, measured, last - applied.answered <= POLICY_LIMIT)


def times(calls: Sequence[Call]) -> str:
    """How long calls took that were answered well."""
    return f"p50 {percentile(calls, 0.5):.0f} ms, p95 {percentile(calls, 0.95):.0f} ms"
