"""Where jobs come from, as far as it matters to the pools: asked of GitHub once for each run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from datetime import datetime, timedelta
from typing import Final

from workers.domain.errors import Refused, Throttled, TryLater
from workers.domain.events import JobFact
from workers.domain.job import Job
from workers.domain.pools import Origin
from workers.ports import Clock, GitHub

# Forgotten runs are asked about again, which costs one request.
REMEMBERED_MAX: Final = 1000
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
        self._asking: dict[int, Future[Origin | str]] = {}

    def of(self, job: Job, facts: Sequence[JobFact]) -> Origin | str:
        """Return where a job comes from, or in words for the user why GitHub does not say so now."""
        is_private = any(fact.is_public is False for fact in facts)
        if is_private or not self._minds_origins():
            return Origin(job.repository)
        with self._lock:
            if (known := self._known.get(job.run_id)) is not None:
                return known
            found = self._asking.get(job.run_id)
            is_first = found is None
            if found is None:
                found = self._asking[job.run_id] = Future[Origin | str]()
        if is_first:
            self._ask(job, found)
        return found.result()

    def _ask(self, job: Job, answer: Future[Origin | str]) -> None:
        """Ask for everybody who waits for this answer."""
        try:
            found = self._asked(job)
            if isinstance(found, Origin):
                self._remember(job.run_id, found)
            answer.set_result(found)
        except BaseException as error:  # noqa: BLE001 - whatever ends the question ends it for all who wait
            answer.set_exception(error)
        finally:
            with self._lock:
                del self._asking[job.run_id]

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
