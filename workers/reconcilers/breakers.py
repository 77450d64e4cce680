"""Counts the runners that come to nothing although jobs wait, and stops the making of more before it has cost much."""

from __future__ import annotations

from workers.domain import breaker as law
from workers.domain.breaker import Breaker
from workers.domain.events import Event, Happening
from workers.domain.runner import Runner
from workers.planning.demand import kind_of
from workers.ports import Clock, Store


class Breakers:
    """One breaker for each kind of demand."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store, self._clock = store, clock

    def note_unused(self, runner: Runner) -> None:
        """Count a runner that was registered and got no job while one waited that it fits."""
        kind, now = kind_of(runner), self._clock.now()
        before = self._store.breaker(kind)
        count = 1 if before is None else before.unused + 1
        because = (
            f"the last {count} runners of package {runner.package} for runs-on: {', '.join(runner.labels)} got no job "
            "of GitHub's although one waits; GitHub gives none to runners of a release older than 30 days: build the "
            "package anew, or look at GitHub's status"
        )
        after = law.in_vain(before, kind, runner.requested_at, now, because)
        if after is not None:
            self._change(before, after, runner, Happening.BREAKER_TRIPPED if after.retry_at else None)

    def note_refused(self, runner: Runner, because: str, *, is_for_good: bool) -> None:
        """Count a runner that GitHub did not register; one of a kind that it never will stops the making at once."""
        kind, now = kind_of(runner), self._clock.now()
        before = self._store.breaker(kind)
        counted = law.refused if is_for_good else law.in_vain
        after = counted(before, kind, runner.requested_at, now, because)
        if after is not None:
            self._change(before, after, runner, Happening.BREAKER_TRIPPED if after.retry_at else None)

    def note_served(self, runner: Runner) -> None:
        """Forget what was counted: a runner of this kind was given a job."""
        before = self._store.breaker(kind_of(runner))
        after = law.served(before, self._clock.now()) if before is not None else None
        if before is not None and after is not None:
            self._change(before, after, runner, Happening.BREAKER_CLOSED if before.retry_at else None)

    def _change(self, before: Breaker | None, after: Breaker, runner: Runner, happening: Happening | None) -> None:
        """Write it down, unless somebody else has counted at the same time: then one is missing, which does no harm."""
        detail: dict[str, str | int] = {"kind": after.id, "unused": after.unused}
        if after.retry_at is not None:
            detail |= {"because": after.because or "", "retry_at": after.retry_at.isoformat()}
        events = [] if happening is None else [self._event(happening, runner, detail)]
        self._store.change_breaker(before, after, *events)

    def _event(self, happening: Happening, runner: Runner, detail: dict[str, str | int]) -> Event:
        return Event(happening, self._clock.now(), job_id=runner.job_id, runner_id=runner.id, detail=detail)
