"""For whom nothing is done any more: an installation that was removed or suspended, a repository taken out of one.

What GitHub would only refuse is not asked of it, so nobody goes on asking.
"""

from __future__ import annotations

from collections.abc import Sequence

from workers.domain.errors import Refused
from workers.domain.job import JobSeen, RunJob, RunSeen
from workers.domain.names import JobId
from workers.domain.remark import Remark
from workers.domain.runner import DEFAULT_GROUP
from workers.ports import GitHub, Registration, Store


def refusal(store: Store, installation_id: int, repository: str) -> str | None:
    """Say in words why nothing is done for this repository any more, None if all is well."""
    installation = store.installation(installation_id)
    return None if installation is None else installation.refusal(repository)


def require_served(store: Store, installation_id: int, repository: str) -> None:
    """Raise `Refused` if nothing is done for this repository any more."""
    if because := refusal(store, installation_id, repository):
        raise Refused(because)


class WhereInstalled:
    """GitHub, asked only for installations that still stand; for others everything is `Refused` at once."""

    def __init__(self, store: Store, github: GitHub) -> None:
        self._store, self._github = store, github

    def register(
        self, installation_id: int, place: str, name: str, labels: Sequence[str], group_id: int = DEFAULT_GROUP
    ) -> Registration:
        """Register a just-in-time runner."""
        return self._asked(installation_id, place).register(installation_id, place, name, labels, group_id)

    def number_of(self, installation_id: int, place: str, name: str) -> int | None:
        """Return GitHub's number of the registration that has this name."""
        return self._asked(installation_id, place).number_of(installation_id, place, name)

    def group_of(self, installation_id: int, repository: str, name: str | None) -> int:
        """Return GitHub's number of a runner group."""
        return self._asked(installation_id, repository).group_of(installation_id, repository, name)

    def deregister(self, installation_id: int, place: str, github_id: int) -> None:
        """Remove a registration."""
        self._asked(installation_id, place).deregister(installation_id, place, github_id)

    def job(self, installation_id: int, repository: str, job_id: JobId) -> JobSeen | None:
        """Ask about one job."""
        return self._asked(installation_id, repository).job(installation_id, repository, job_id)

    def run(self, installation_id: int, repository: str, run_id: int) -> RunSeen | None:
        """Ask where a run comes from."""
        return self._asked(installation_id, repository).run(installation_id, repository, run_id)

    def rerun_failed(self, installation_id: int, repository: str, run_id: int) -> None:
        """Run the failed jobs of a run again."""
        self._asked(installation_id, repository).rerun_failed(installation_id, repository, run_id)

    def rerun_job(self, installation_id: int, repository: str, job_id: JobId) -> None:
        """Run one job again."""
        self._asked(installation_id, repository).rerun_job(installation_id, repository, job_id)

    def jobs_of(self, installation_id: int, repository: str, run_id: int) -> Sequence[RunJob]:
        """Return the jobs of a run's latest attempt."""
        return self._asked(installation_id, repository).jobs_of(installation_id, repository, run_id)

    def remark(self, remark: Remark) -> None:
        """Put a check run beside a commit."""
        self._asked(remark.installation_id, remark.repository).remark(remark)

    def _asked(self, installation_id: int, repository: str) -> GitHub:
        require_served(self._store, installation_id, repository)
        return self._github
