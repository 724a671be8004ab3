"""Whom to send attempts to: a picker that follows the service's state, outlier detection and time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from math import inf

from trimtab.core.backoff import Rng
from trimtab.core.balancing.build import Built, Context, build
from trimtab.core.balancing.loads import Loads
from trimtab.core.breaking.outlier import OutlierDetector
from trimtab.core.endpoints import Endpoint, ServiceState
from trimtab.policy.sections import Balance, Outlier, Split

# Picks that may meet endpoints that were tried already, before a picker is made of those that are left.
_TURNS = 8


class Balancer:
    """The picker for all pipelines of a service that balance alike. Times in seconds of one monotonic clock.

    ``due``: when ``refresh`` has something to do, so that a call asks with one comparison. ``changed`` is called when other
    endpoints are ejected than before, with the ids of those that are new and of those that may be called again. ``loads``: what
    endpoints report, None where weights do not go by it.
    """

    def __init__(
        self,
        balance: Balance,
        split: Split | None,
        outlier: Outlier | None,
        state: ServiceState,
        *,
        zone: str,
        client_id: str,
        rng: Rng,
        sequence: Iterator[int],
        now: float,
        changed: Callable[[list[str], list[str]], None] | None = None,
    ) -> None:
        self.balance = balance
        self.split = split
        self.outlier = OutlierDetector(outlier, state.candidates()) if outlier is not None else None
        self._zone = zone
        self._client_id = client_id
        self._rng = rng
        self._sequence = sequence
        self._since: dict[str, float] = {}
        self._favourites: dict[str, None] = {}
        self.loads = Loads() if balance.weights == "load" else None
        self._state = state
        self._built: Built
        self._changed = changed
        self._told = self.ejected
        # What is there already is not new: only who comes later starts slowly.
        self._follow(state, now - balance.slow_start.window if balance.slow_start else now)
        self._build(now)

    def succeed(self, before: Balancer, now: float) -> None:
        """Go on from what another one found out of the endpoints: a change of how to balance makes nobody new, or well."""
        if self.outlier is not None and before.outlier is not None:
            self.outlier.take_over(before.outlier)
        # Whom other settings let back is told of, when the picker is built.
        self._told = before.ejected or self.ejected
        if self.loads is not None and before.loads is not None:
            self.loads.take_over(before.loads)
        warms = self.balance.slow_start is not None and before.balance.slow_start is not None
        if warms:
            self._since = before._since
        stays = self.balance.algorithm == before.balance.algorithm == "pick_first"
        if stays:
            self._favourites = before._favourites.copy()
        if self.ejected or before.ejected or self.loads is not None or warms or stays:
            self._follow(self._state, now)
            self._build(now)
        else:
            # Calls wait for this, and the picker would be the same.
            self._plan()

    def update(self, state: ServiceState, now: float) -> None:
        """The service changed."""
        if state is self._state:
            return
        self._state = state
        if self.outlier is not None:
            self.outlier.retain(state.candidates())
        self._follow(state, now)
        self._build(now)

    def refresh(self, now: float) -> None:
        """Do what time asks for: compare success rates, let ejected endpoints back, warm new ones up."""
        if self.outlier is not None and now >= self.outlier.due:
            self.outlier.sweep(now)
            # Mostly nobody was ejected or is let back, and a call is waiting for this.
            again = self._built.refresh_at
            if self.outlier.ejected is self._told and (again is None or now < again):
                self._plan()
                return
        self._build(now)

    def judge(self, endpoint: Endpoint, ok: bool, now: float) -> None:
        """An attempt to ``endpoint`` ended. Only with outlier detection."""
        assert self.outlier is not None
        if self.outlier.record(endpoint.id, ok, now):
            self._build(now)

    def pick(self, now: float, key: int | None, tried: Collection[str]) -> Endpoint | None:
        """An endpoint that is not among the ids in ``tried``; None when there is none."""
        for turn in range(_TURNS):
            # A key with other topmost bits is at another place of a ring, and still of the same version, tier and zone.
            endpoint = self.picker.pick(now, key if key is None else key ^ (turn * 0x9E37 & 0xFFFF) << 48)
            if endpoint is None or endpoint.id not in tried:
                return endpoint
        state = self._state
        left = {e.id: e for e in state.eligible() if e.id not in tried}
        # Who is ejected is better than nobody: then everything else was tried.
        rest = replace(state, healthy=left, suspect={}, protected=False)
        # pick_first stays where it is: a copy of what it remembers.
        context = replace(self._context(now), favourites=dict(self._favourites))
        return build(replace(self.balance, panic=0.0), self.split, rest, context).picker.pick(now, key)

    def has_others(self, tried: Collection[str]) -> bool:
        """Whether there is an endpoint that is not among the ids in ``tried``."""
        return any(endpoint.id not in tried for endpoint in self._state.eligible())

    @property
    def ejected(self) -> frozenset[str]:
        """Ids of the endpoints that outlier detection keeps out."""
        return self.outlier.ejected if self.outlier is not None else frozenset()

    @property
    def keyed(self) -> bool:
        """Which endpoint it is may depend on headers or arguments of the call."""
        return self.balance.hash is not None or (self.split is not None and self.split.sticky is not None)

    @property
    def panicking(self) -> bool:
        """So few are healthy that health is ignored."""
        return self._built.panicking

    def _follow(self, state: ServiceState, now: float) -> None:
        if self.balance.slow_start is not None:
            known = self._since
            self._since = {id_: known.get(id_, now) for id_ in state.healthy}
        if self.loads is not None:
            self.loads.retain(state.endpoints, {endpoint.id for endpoint in state.eligible()})

    def _context(self, now: float) -> Context:
        return Context(
            zone=self._zone,
            client_id=self._client_id,
            rng=self._rng,
            sequence=self._sequence,
            ejected=self.ejected,
            since=self._since,
            load_weights=self.loads.weights(now) if self.loads is not None else {},
            favourites=self._favourites,
            now=now,
        )

    def _build(self, now: float) -> None:
        built = build(self.balance, self.split, self._state, self._context(now))
        self._built, self.picker = built, built.picker
        if self.outlier is not None:
            self.outlier.reach = built.reach
        if self._told is not self.ejected:
            before, self._told = self._told, self.ejected
            if self._changed is not None:
                candidates = self._state.candidates()
                back = [id_ for id_ in before - self._told if id_ in candidates]
                self._changed(sorted(self._told - before), sorted(back))
        self._plan()

    def _plan(self) -> None:
        due = self._built.refresh_at if self._built.refresh_at is not None else inf
        self.due = due if self.outlier is None else min(due, self.outlier.due)
