"""Where jobs come from, as far as it matters to the pools: asked of GitHub once for each run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from workers.domain.errors import TryLater
from workers.domain.events import JobFact
from workers.domain.job import Job
from workers.domain.pools import Origin
from workers.ports import GitHub

# Forgotten runs are asked about again, which costs one request.
REMEMBERED_MAX: Final = 1000


class Origins:
    """Knows where the jobs of some runs come from."""

    def __init__(self, github: GitHub, *, minds_origins: bool) -> None:
        """`minds_origins`: some pool refuses the jobs of forks."""
        self._github, self._minds_origins = github, minds_origins
        self._known: dict[int, Origin] = {}

    def of(self, job: Job, facts: Sequence[JobFact]) -> Origin | None:
        """Return where a job comes from; None if GitHub cannot say just now."""
        is_private = any(fact.is_public is False for fact in facts)
        if is_private or not self._minds_origins:
            return Origin(job.repository)
        if job.run_id not in self._known:
            found = self._asked(job)
            if found is None:
                return None
            if len(self._known) >= REMEMBERED_MAX:
                del self._known[next(iter(self._known))]
            self._known[job.run_id] = found
        return self._known[job.run_id]

    def _asked(self, job: Job) -> Origin | None:
        try:
            run = self._github.run(job.installation_id, job.repository, job.run_id)
        except TryLater:
            return None
        # A run that is gone has no jobs; the next poll of the job finds out.
        return Origin(job.repository, run.is_public, run.is_fork) if run is not None else None
