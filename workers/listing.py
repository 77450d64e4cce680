"""The ports through which we see what GitHub lists and what else it knows of a job; `workers.ports` has the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from workers.domain.listed import DeliveryPage, InstallationListed, JobListed, RunnerListed, Scope
from workers.domain.names import JobId


class GitHubLists(Protocol):
    """What GitHub lists whether or not it told us; what has not changed costs nothing to read again.

    Raises `Unreachable`, `Throttled` and `Refused`; where GitHub knows of no such thing there are no runs and no jobs.
    """

    @property
    def apps(self) -> Sequence[int]:
        """Our Apps, each of which has a webhook and deliveries of its own."""

    def left(self, installation_id: int) -> float:
        """Return which part of this hour's requests is left, as the last answer said; 1 if none has."""

    def deliveries(self, app: int, cursor: str | None = None) -> DeliveryPage:
        """Return one page of tries to deliver to an App's webhook, newest first; `cursor` is a page's `older`."""

    def redeliver(self, app: int, delivery_id: int) -> None:
        """Ask for another try to deliver this one of an App's."""

    def installations(self, app: int) -> Sequence[InstallationListed]:
        """Return the installations of an App, those that are suspended too; all of them or none.

        What is missing is taken for removed, so whatever is not a whole list is raised as one of the errors above.
        """

    def repositories(self, app: int) -> Sequence[Scope]:
        """Return the repositories of every installation of an App, up to a bound."""

    def unfinished_runs(self, scope: Scope, *, is_quiet: bool = False) -> Sequence[int]:
        """Return the runs that have not ended; where it `is_quiet` not those of which no job has come up yet."""

    def finished_runs(self, scope: Scope, since: datetime) -> Mapping[int, datetime]:
        """Return the runs that have ended since then and began no more than a day before that, the latest first.

        Each comes with the moment of its last change: one that is run again has another.
        """

    def all_jobs(self, scope: Scope, run_id: int) -> Sequence[JobListed]:
        """Return the jobs of every attempt of a run."""

    def registrations(self, scope: Scope) -> Sequence[RunnerListed]:
        """Return every registration there, all of them or none: what is missing is taken for gone.

        Raises `NotThere` where GitHub knows of no such place, and `Refused` if there are too many to be read.
        """


class Deployments(Protocol):
    """What GitHub knows of a job and lists nowhere. Raises `Unreachable`, `Throttled` and `Refused`."""

    def holds_deployment(self, installation_id: int, repository: str, job_id: JobId) -> bool | None:
        """Ask whether a job deploys to an environment; None if GitHub knows of no such job."""
