"""Outlier detection: endpoints that behave worse than the others get no calls for a while.

Source: gRFC A50, and grpc-go's ``outlierdetection`` where it says more than the text: comparisons are strict, the standard
deviation is that of the whole population, and both rates count only endpoints with enough calls. Failures in a row eject
at once, as in Envoy. Differences, on purpose:

- The cap is never passed, and the worst endpoint is ejected first, not the first that is looked at.
- The only endpoint of a service is an outlier of nothing: below a share of 100 % it stays.
- Where most of those that are left fail, the service has too much to do, or is down: nobody is ejected for failures in a row,
  and who was ejected comes back. Taking capacity away from an overload would keep it up long after its cause has gone. Who
  came back so stays for as long as a first ejection takes, or two endpoints would go on to overload each other in turn.
- An interval without calls needs no timer: a late sweep forgives as much as those that were left out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from math import inf, sqrt

from trimtab.policy.sections import FailurePercentage, Outlier, SuccessRate


class _Calls:
    """Calls to one endpoint since the last sweep, and how many of the last failed in a row."""

    __slots__ = ("failed", "ok", "row")

    def __init__(self) -> None:
        self.ok = 0
        self.failed = 0
        self.row = 0

    def copy(self) -> _Calls:
        """The same, to be counted on by another."""
        calls = _Calls()
        calls.ok, calls.failed, calls.row = self.ok, self.failed, self.row
        return calls


class _Ejection:
    """When an endpoint was ejected last, and how many times that were lately: A50's ejection time multiplier."""

    __slots__ = ("at", "times")

    def __init__(self) -> None:
        self.at = 0.0
        self.times = 0

    def copy(self) -> _Ejection:
        """The same, to be forgiven by another."""
        ejection = _Ejection()
        ejection.at, ejection.times = self.at, self.times
        return ejection


class OutlierDetector:
    """Judges the endpoints of one service. Not thread-safe; times in seconds of one clock, handed in.

    ``ejected`` are the ids that must get no calls: a new set whenever it changes, and never one that is gone. ``due`` is
    the time of the next ``sweep``; the first is due at once, and starts the interval. While it is not ``attentive``, a call that
    went well tells it nothing, and need not be recorded. ``reach``: how many endpoints are left to take calls; to be set after
    each change where a picker leaves out more than the ejected ones (another zone, a tier in reserve).
    """

    __slots__ = (
        "_calls", "_ejections", "_endpoints", "_lenient_until", "_rated", "_rows", "_settings", "attentive", "due", "ejected",
        "reach",
    )  # fmt: skip

    def __init__(self, settings: Outlier, endpoints: Collection[str]) -> None:
        self._settings = settings
        self._endpoints = endpoints
        # Where no rates are compared, nobody asks how many calls went well.
        self._rated = settings.success_rate is not None or settings.failure_percentage is not None
        self._rows = 0  # endpoints whose last call failed
        self.attentive = self._rated
        self._calls: dict[str, _Calls] = {}
        self._ejections: dict[str, _Ejection] = {}  # of those that are ejected, or not yet forgiven
        self.due = -inf
        self.ejected: frozenset[str] = frozenset()
        self.reach = len(endpoints)
        self._lenient_until = -inf  # nobody is ejected for failures in a row before

    def take_over(self, before: OutlierDetector) -> None:
        """Go on from what another one knows, if it judges alike. Calls that it was to be told of still count there only."""
        if before._settings != self._settings:
            return
        self._calls = {id_: calls.copy() for id_, calls in before._calls.items()}
        self._ejections = {id_: ejection.copy() for id_, ejection in before._ejections.items()}
        self._rows, self.attentive = before._rows, before.attentive
        self._lenient_until, self.due, self.ejected = before._lenient_until, before.due, before.ejected
        self.retain(self._endpoints)

    def retain(self, endpoints: Collection[str]) -> bool:
        """These may be called from now on (kept, not copied). Returns whether ``ejected`` changed."""
        self._endpoints = endpoints
        if self._rows:
            # Who gets no calls cannot make good what it did last.
            for id_, calls in self._calls.items():
                if id_ not in endpoints:
                    self._forget_row(calls)
        left = [id_ for id_ in self.ejected if id_ in endpoints]
        if len(left) > self._most:
            # The share is of fewer now: who was out longest comes back.
            left.sort(key=lambda id_: -self._ejections[id_].at)
            del left[self._most :]
        changed = self._eject_only(left)
        self.reach = len(endpoints) - len(self.ejected)
        return changed

    def record(self, id_: str, ok: bool, now: float) -> bool:
        """A call to an endpoint ended. Returns whether ``ejected`` changed."""
        try:
            calls = self._calls[id_]
        except KeyError:
            calls = self._calls[id_] = _Calls()
        if ok:
            if calls.row:
                self._forget_row(calls)
            if self._rated:
                calls.ok += 1
            return False
        calls.failed += 1
        if id_ in self.ejected or id_ not in self._endpoints:
            # Sent before it was left out: it is none of those that are left, whose failures are weighed below.
            return False
        if not calls.row:
            self._rows += 1
            self.attentive = True
        calls.row += 1
        enough = self._settings.consecutive
        too_many = enough is not None and calls.row >= enough
        if 2 * self._rows > self.reach and (too_many or self._rows > 1):
            if not self.ejected:
                return False
            # What fails does so without its help, too: those that are left could not carry its share.
            self._lenient_until = now + self._settings.eject_for
            return self._eject_only(())
        return too_many and now >= self._lenient_until and self._eject([id_], now)

    def sweep(self, now: float) -> bool:
        """An interval is over: compare rates, forgive, and let back who was out long enough. Returns as ``record`` does."""
        before = self.ejected
        settings = self._settings
        missed = 0 if self.due == -inf else int((now - self.due) / settings.interval)
        self.due = now + settings.interval
        for gone in [id_ for id_ in self._calls if id_ not in self._endpoints]:
            self._forget_row(self._calls.pop(gone))
            self._ejections.pop(gone, None)
        if settings.success_rate is not None:
            self._eject(self._unsuccessful(settings.success_rate), now)
        if settings.failure_percentage is not None:
            self._eject(self._failing(settings.failure_percentage), now)
        if self._rated:
            for calls in self._calls.values():
                calls.ok = calls.failed = 0
        self._forgive(now, 1 + missed)
        return self.ejected != before

    # Inside

    def _forget_row(self, calls: _Calls) -> None:
        """Its failures in a row are over."""
        if calls.row:
            calls.row = 0
            self._rows -= 1
            self.attentive = self._rated or self._rows > 0

    def _unsuccessful(self, rule: SuccessRate) -> list[str]:
        """A50's success rate algorithm: below ``mean - stdev * sigma`` of all that have enough calls. The worst first."""
        rates = {id_: calls.ok / (calls.ok + calls.failed) for id_, calls in self._with(rule.volume)}
        if len(rates) < rule.hosts:
            return []
        mean = sum(rates.values()) / len(rates)
        sigma = sqrt(sum((rate - mean) ** 2 for rate in rates.values()) / len(rates))
        least = mean - rule.stdev * sigma
        return sorted((id_ for id_, rate in rates.items() if rate < least), key=rates.__getitem__)

    def _failing(self, rule: FailurePercentage) -> list[str]:
        """A50's failure percentage algorithm: above a fixed share. The worst first."""
        rates = {id_: calls.failed / (calls.ok + calls.failed) for id_, calls in self._with(rule.volume)}
        if len(rates) < rule.hosts:
            return []
        return sorted(
            (id_ for id_, rate in rates.items() if rate > rule.threshold), key=rates.__getitem__, reverse=True
        )

    def _with(self, volume: int) -> Iterable[tuple[str, _Calls]]:
        """The endpoints that have at least ``volume`` (1 or more) calls."""
        return (pair for pair in self._calls.items() if pair[1].ok + pair[1].failed >= volume)

    def _eject(self, ids: Collection[str], now: float) -> bool:
        """Eject those of ``ids`` for which there is room, the first ones first. Returns whether there was any."""
        out = set(self.ejected)
        for id_ in ids:
            if id_ not in out and id_ in self._endpoints and len(out) < self._most:
                ejection = self._ejections.setdefault(id_, _Ejection())
                ejection.at = now
                ejection.times += 1
                self._forget_row(self._calls[id_])
                out.add(id_)
        return self._eject_only(out)

    def _forgive(self, now: float, intervals: int) -> None:
        """Let back who was out long enough; who is not out has one time less against it for each of the ``intervals``."""
        settings = self._settings
        longest = max(settings.eject_for, settings.eject_limit)
        back = set()
        for id_, ejection in list(self._ejections.items()):
            if id_ not in self.ejected:
                ejection.times -= intervals
                if ejection.times <= 0:
                    del self._ejections[id_]
            elif now > ejection.at + min(settings.eject_for * ejection.times, longest):
                self._forget_row(self._calls[id_])
                back.add(id_)
        self._eject_only(self.ejected - back)

    def _eject_only(self, ids: Collection[str]) -> bool:
        if len(ids) == len(self.ejected) and self.ejected.issuperset(ids):
            return False
        self.ejected = frozenset(ids)
        self.reach = len(self._endpoints) - len(self.ejected)
        return True

    @property
    def _most(self) -> int:
        """How many may be ejected at the same time."""
        count = len(self._endpoints)
        share = int(self._settings.max_ejected * count + 1e-9)
        return max(share, 1) if count > 1 else share
