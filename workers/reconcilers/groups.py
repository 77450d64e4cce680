"""The runner group of a pool whose runners are registered with the organization: asked of GitHub by its name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from workers.domain.errors import Refused, TryLater
from workers.domain.job import Job
from workers.domain.labels import Unserved
from workers.domain.pools import Policy, Terms
from workers.domain.runner import Level
from workers.ports import Clock, GitHub
from workers.reconcilers.origins import later

# Groups are made once and changed seldom; a registration in one that is gone is refused, and its number asked anew.
KNOWN_LIMIT: Final = timedelta(minutes=10)
# Whoever reads that a group does not admit a repository changes that, and waits for what comes of it.
REFUSED_LIMIT: Final = timedelta(minutes=1)
# Forgotten ones are asked for again, which costs two requests at most.
REMEMBERED_MAX: Final = 10_000

_Key = tuple[int, str, str | None]


@dataclass(frozen=True)
class _Refusal:
    """Why there is no group."""

    because: str


class Groups:
    """Knows the numbers of some groups, and which repositories they admit."""

    def __init__(self, github: GitHub, clock: Clock, pools: Callable[[], Policy]) -> None:
        """`pools` is what the administrator allows now."""
        self._github, self._clock, self._pools = github, clock, pools
        self._known: dict[_Key, tuple[datetime, int | _Refusal]] = {}

    def settle(self, job: Job, decided: Terms | Unserved) -> Terms | Unserved | str:
        """Return what was decided with the number of its group, or why it has none; a text if GitHub cannot say now."""
        if isinstance(decided, Unserved) or decided.level is Level.REPOSITORY:
            return decided
        pool = self._pools().pool(decided.pool)
        found = self._group(job, pool.runner_group if pool is not None else None)
        if isinstance(found, int):
            return replace(decided, group_id=found)
        return Unserved(f"pool {decided.pool}: {found.because}") if isinstance(found, _Refusal) else found

    def _group(self, job: Job, name: str | None) -> int | _Refusal | str:
        key, now = (job.installation_id, job.repository.lower(), name), self._clock.now()
        until, found = self._known.get(key, (now, _Refusal("")))
        if now < until:
            return found
        try:
            known: int | _Refusal = self._github.group_of(job.installation_id, job.repository, name)
        except TryLater as error:
            return later(f"the number of the runner group for {job.repository}", error)
        except Refused as error:
            known = _Refusal(str(error))
        if len(self._known) >= REMEMBERED_MAX:
            del self._known[next(iter(self._known))]
        self._known[key] = now + (KNOWN_LIMIT if isinstance(known, int) else REFUSED_LIMIT), known
        return known
