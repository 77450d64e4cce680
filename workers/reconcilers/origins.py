"""Where jobs come from, as far as it matters to the pools: asked of GitHub once for each run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

from workers.domain.errors import Refused, Throttled, TryLater
from workers.domain.events import JobFact
from workers.domain.job import Job
from workers.domain.pools import Origin
from workers.ports import Clock, GitHub

# Forgotten runs are asked about again, which costs one request.
REMEMBERED_MAX: Final = 1000
TURNS: Final = 61
# A permission that is missing may be given, but not from one sweep to the next.
REFUSED_INTERVAL: Final = timedelta(minutes=2)


def later(what: str, error: TryLater) -> str:
    """Say in words what GitHub cannot say just now; when it is asked again changes too often to be written down."""
    why = "has no budget left for the question" if isinstance(error, Throttled) else "does not answer"
    return f"GitHub {why}: {what} is asked again soon"


class Origins:
    """Knows where the jobs of some runs come from; threads that ask about one at the same time share one question."""

    def __init__(self, github: GitHub, clock: Clock, minds_origins: Callable[[], bool]) -> None:
        """`minds_origins` says whether some pool refuses the jobs of forks now."""
        self._github, self._clock, self._minds_origins = github, clock, minds_origins
        self._known: dict[int, Origin] = {}
        self._refused: dict[int, tuple[datetime, str]] = {}
        self._lock = threading.Lock()
        # Who asks about the same run waits for the answer; that two runs share a turn now and then does no harm.
        self._turns = [threading.RLock() for _ in range(TURNS)]

    def of(self, job: Job, facts: Sequence[JobFact]) -> Origin | str:
        """Return where a job comes from, or in words for the user why GitHub does not say so now."""
        is_private = any(fact.is_public is False for fact in facts)
        if is_private or not self._minds_origins():
            return Origin(job.repository)
        with self._turns[job.run_id % TURNS]:
            known = self._known.get(job.run_id)
            if known is None:
                found = self._asked(job)
                if isinstance(found, str):
                    return found
                self._remember(job.run_id, known := found)
            return known

    def _remember(self, run_id: int, origin: Origin) -> None:
        with self._lock:
            if len(self._known) >= REMEMBERED_MAX:
                del self._known[next(iter(self._known))]
            self._known[run_id] = origin

    def _asked(self, job: Job) -> Origin | str:
        now = self._clock.now()
        at, refused = self._refused.get(job.run_id, (now - REFUSED_INTERVAL, ""))
        if now - at < REFUSED_INTERVAL:
            return refused
        try:
            run = self._github.run(job.installation_id, job.repository, job.run_id)
        except TryLater as error:
            return later(f"where run {job.run_id} comes from", error)
        except Refused as error:
            refused = (
                f"{error}; some pool takes no jobs of forks, so it must be known whether this is one: let an owner "
                "accept actions: read for the App"
            )
            self._refused = {key: one for key, one in self._refused.items() if now - one[0] < REFUSED_INTERVAL}
            self._refused[job.run_id] = now, refused
            return refused
        # A run that is gone has no jobs; the next poll of the job finds out.
        if run is None:
            return f"GitHub knows of no run {job.run_id} any more"
        return Origin(job.repository, run.is_public, run.is_fork)
