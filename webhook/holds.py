"""What becomes of the wish of a job not to be moved: it comes with a heartbeat, and `domain.hold` judges it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from webhook.needs import HostStore
from workers.domain.events import Event, Happening
from workers.domain.hold import Hold, heard, is_held
from workers.domain.messages import RunnerReport
from workers.domain.names import HostId
from workers.domain.runner import Runner


def hear_holds(store: HostStore, host_id: HostId, reports: Sequence[RunnerReport], now: datetime) -> None:
    """Write down what is new; a host speaks for the guests that it has, and for nobody else's."""
    for report in reports:
        before = store.hold_of(report.runner_id) if report.hold else None
        if report.hold is None or (before is not None and before.number == report.hold.number):
            continue
        runner = store.runners.get(report.runner_id)
        if runner is None or (runner.host_id, runner.epoch) != (host_id, report.epoch):
            continue
        after = heard(before, runner.id, report.hold, timedelta(seconds=runner.hold_limit_s), now)
        store.change_hold(before, after, *_events(runner, before, after, now))


def _events(runner: Runner, before: Hold | None, after: Hold, now: datetime) -> Iterator[Event]:
    happening = Happening.HOLD_BEGAN if is_held(after, now) else Happening.HOLD_ENDED
    if happening is Happening.HOLD_ENDED and not is_held(before, now):
        return
    yield Event(
        happening,
        now,
        job_id=runner.job_id,
        runner_id=runner.id,
        host_id=runner.host_id,
        detail={"held_until": after.ends_at.isoformat(timespec="seconds")},
    )
