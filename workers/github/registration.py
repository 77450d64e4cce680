"""Just-in-time runners: a registration is good for one job, and its configuration is a secret."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

from github import GithubException

from workers.domain.errors import Refused, RunnerBusy, Unregistrable
from workers.domain.pace import Urgency
from workers.domain.runner import DEFAULT_GROUP
from workers.github.answers import Json, sentence_of
from workers.github.calls import Calls, runners_path
from workers.ports import Registration

WORK_FOLDER: Final = "_work"


class Registrations:
    """Registers runners and takes registrations away."""

    def __init__(self, calls: Calls, mark: str = "") -> None:
        """`mark` is how the names of our runners begin."""
        self._calls, self._mark = calls, mark

    def register(
        self, installation_id: int, place: str, name: str, labels: Sequence[str], group_id: int = DEFAULT_GROUP
    ) -> Registration:
        """Register a just-in-time runner. A name that is taken by a registration of ours is freed and taken again.

        Raises `Unregistrable` for labels or a runner group that GitHub does not accept.
        """
        wish = {"name": name, "runner_group_id": group_id, "labels": list(labels), "work_folder": WORK_FOLDER}
        with self._calls.translated(installation_id, f"registering {name} for {place}"):
            try:
                return self._register(installation_id, place, wish)
            except GithubException as error:
                if error.status != HTTPStatus.CONFLICT:
                    raise
                self._require_ours(place, name, error)
            # The leftover of an earlier try; a name is one runner's of ours, so it is nobody else's.
            leftover = self._find(installation_id, place, name)
            if leftover is not None:
                self._delete(installation_id, place, leftover)
            return self._register(installation_id, place, wish)

    def number_of(self, installation_id: int, place: str, name: str) -> int | None:
        """Return GitHub's number of the registration that has this name, None if there is none."""
        with self._calls.translated(installation_id, f"looking for {name} in {place}"):
            return self._find(installation_id, place, name)

    def deregister(self, installation_id: int, place: str, github_id: int) -> None:
        """Remove a registration; one that is gone is a success. Raises `RunnerBusy`."""
        with self._calls.translated(installation_id, f"removing runner {github_id} of {place}"):
            self._delete(installation_id, place, github_id)

    def _register(self, installation_id: int, place: str, wish: Json) -> Registration:
        path = f"{runners_path(place)}/generate-jitconfig"
        try:
            answer = self._calls.register(installation_id, path, place, wish).body
        except GithubException as error:
            if because := why_unregistrable(error, place, wish):
                raise Unregistrable(because) from error
            raise
        return Registration(github_id=answer["runner"]["id"], jit_config=answer["encoded_jit_config"])

    def _require_ours(self, place: str, name: str, error: GithubException) -> None:
        if not name.startswith(self._mark):
            raise Refused(
                f"registering {name} for {place}: a runner of that name is there, and it is not this deployment's, "
                f"whose names begin with {self._mark}, so it is left alone; remove it on GitHub if nobody needs it "
                "(the job's next runner gets another name)"
            ) from error

    def _find(self, installation_id: int, place: str, name: str) -> int | None:
        path, wanted = runners_path(place), {"name": name}
        answer = self._calls.ask(installation_id, "GET", path, parameters=wanted, urgency=Urgency.RUNNER)
        return next((runner["id"] for runner in answer.body["runners"] if runner["name"] == name), None)

    def _delete(self, installation_id: int, place: str, github_id: int) -> None:
        path = f"{runners_path(place)}/{github_id}"
        try:
            self._calls.ask(installation_id, "DELETE", path, urgency=Urgency.RUNNER)
        except GithubException as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return
            if error.status == HTTPStatus.UNPROCESSABLE_ENTITY:
                raise RunnerBusy(f"GitHub keeps runner {github_id} of {place} because it runs a job") from error
            raise


def why_unregistrable(error: GithubException, place: str, wish: Json) -> str | None:
    """Say in words what no repetition of a registration changes; None: it is none of that."""
    said, where = sentence_of(error), f"registering {wish['name']} for {place}"
    if error.status == HTTPStatus.UNPROCESSABLE_ENTITY:
        labels = ", ".join(f"{label:.60}" for label in wish["labels"])
        return (
            f"{where}: GitHub does not accept the labels {labels} ({said}); write others after runs-on, 100 at most "
            "and each of 256 characters at most"
        )
    if error.status == HTTPStatus.NOT_FOUND and wish["runner_group_id"] != DEFAULT_GROUP:
        return (
            f"{where}: GitHub knows no runner group with the number {wish['runner_group_id']} there any more ({said}); "
            "make it again, or name another one in the pool's runner_group"
        )
    return None
