"""Runner groups: in an organization each admits all of its repositories or some, and a runner is in one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Self

from workers.domain.errors import Refused
from workers.domain.pace import Urgency
from workers.github.answers import Json
from workers.github.calls import Calls

PER_PAGE: Final = 100
# An organization has a thousand at the very most.
PAGES_MAX: Final = 10


@dataclass(frozen=True)
class _Group:
    """What we use of a group."""

    id: int
    name: str
    is_default: bool
    is_inherited: bool

    @classmethod
    def of(cls, told: Json) -> Self:
        return cls(int(told["id"]), str(told["name"]), bool(told["default"]), bool(told["inherited"]))


class RunnerGroups:
    """Finds runner groups by their names."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def group_of(self, installation_id: int, repository: str, name: str | None) -> int:
        """Return GitHub's number of a runner group of this repository's organization, None: of the default one.

        Raises `Refused` if there is no such group or it does not admit this repository.
        """
        owner, _, short = repository.partition("/")
        path = f"/orgs/{owner}/actions/runner-groups"
        admitting = self._named(installation_id, path, name, {"visible_to_repository": short})
        if admitting is not None:
            return admitting
        called = f"the runner group {name!r}" if name is not None else "the default runner group"
        if self._named(installation_id, path, name, {}) is None:
            raise Refused(
                f"{called} is none of {owner}'s; make it in the organization's settings (Actions, Runner groups), or "
                "name another one in runner_group"
            )
        raise Refused(
            f"{called} of {owner} does not admit {repository}; let an owner give the repository access to it, and "
            "allow public repositories there if it is one, or name another one in runner_group"
        )

    def _named(self, installation_id: int, path: str, name: str | None, asked: Json) -> int | None:
        """Return the number of the group of this name, the organization's own before one of its enterprise."""
        wanted = None if name is None else name.lower()
        found = [
            one
            for one in self._groups(installation_id, path, asked)
            if (one.is_default if wanted is None else one.name.lower() == wanted)
        ]
        mine = min(found, key=lambda one: one.is_inherited, default=None)
        return None if mine is None else mine.id

    def _groups(self, installation_id: int, path: str, asked: Json) -> Iterator[_Group]:
        try:
            for page in range(1, PAGES_MAX + 1):
                wish = {**asked, "per_page": PER_PAGE, "page": page}
                with self._calls.translated(installation_id, f"reading {path}"):
                    found = self._calls.ask(installation_id, "GET", path, parameters=wish, urgency=Urgency.RUNNER)
                    groups = [_Group.of(one) for one in found.body["runner_groups"]]
                yield from groups
                if len(groups) < PER_PAGE:
                    return
        except Refused as error:
            raise Refused(
                f"{error}; let an owner accept organization_self_hosted_runners: write for the App (a person's account "
                'has no runners of its own), or set register = "repository"'
            ) from error
