"""What is said beside commits: owed in the store before the row says why, and said until GitHub has heard it.

decided ─▶ owed (one line of the store for each key) ─▶ due ─▶ taken by one worker ─▶ GitHub ─▶ settled
                                                        ▲└───── no answer, or one in doubt ◀┘
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import structlog

from workers.domain.errors import Refused
from workers.domain.job import Job
from workers.domain.labels import Unserved
from workers.domain.remark import Remark
from workers.planning import remarks
from workers.planning.reruns import reruns_of
from workers.ports import Clock, GitHub, Store
from workers.reconcilers.doubts import Doubts

log = structlog.get_logger()

# Longer than the three calls that it takes, each of which GitHub may leave unanswered for ten seconds.
TAKEN_LIMIT: Final = timedelta(minutes=1)


class Answers:
    """Owes remarks, and makes them."""

    def __init__(self, store: Store, github: GitHub, clock: Clock) -> None:
        self._store, self._github, self._doubts = store, github, Doubts(clock)

    def unserved(self, job: Job, why: Unserved) -> None:
        """Owe the reason why nobody serves a job's labels."""
        self._owe(remarks.unserved(job, why))

    def served(self, job: Job) -> None:
        """Owe the word that they are served after all."""
        self._owe(remarks.served(job))

    def lost(self, job: Job, attempts: Sequence[Job], refusal: str | None) -> None:
        """Owe what happened to a lost job and what is done now."""
        runner = self._store.runners.get(job.runner_id) if job.runner_id else None
        self._owe(remarks.lost(job, runner, reruns_of(job, attempts), refusal))

    def due(self) -> Sequence[str]:
        """Return the keys of the remarks that are to be made now."""
        return self._store.owed()

    def advance(self, key: str) -> None:
        """Make one remark. Raises `TryLater`; then it is due again when the time of whoever took it is over."""
        remark = self._store.take_remark(key, TAKEN_LIMIT)
        if remark is None:
            return
        try:
            with self._doubts.given(key):
                self._github.remark(remark)
        except Refused as error:
            # The reason stands in the timeline and in `spot-runner explain` as well.
            log.warning("remark_refused", key=key, repository=remark.repository, because=str(error))
        self._store.settle_remark(remark)

    def _owe(self, remark: Remark | None) -> None:
        if remark is not None:
            self._store.owe(remark)
