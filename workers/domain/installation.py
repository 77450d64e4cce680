"""Our App's installation in one account: GitHub's, and told by its webhooks in whatever order and however often.

    ACTIVE ◀──▶ SUSPENDED        the word that GitHub dates later decides; of two with one date the lifting does
       └──────────┴──▶ REMOVED   for good: whoever installs the App again gets an installation with another number
                                 (but one that GitHub lists is there, whoever said that it was removed)

A repository is out of it if the last word about it was that it was removed. One of which nothing was said is in: of
what is out GitHub delivers nothing, and the installation may be older than we are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum, auto
from typing import Final

from workers.domain.errors import BadInput

ACCOUNT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")


class InstallationAction(StrEnum):
    """The actions of GitHub's `installation` and `installation_repositories` events."""

    CREATED = auto()
    DELETED = auto()
    SUSPEND = auto()
    UNSUSPEND = auto()
    NEW_PERMISSIONS_ACCEPTED = auto()
    ADDED = auto()
    REMOVED = auto()


class InstallationState(StrEnum):
    ACTIVE = auto()
    SUSPENDED = auto()
    REMOVED = auto()


@dataclass(frozen=True)
class InstallationFact:
    """What one delivery said about one installation."""

    delivery: str
    """`X-GitHub-Delivery`: a redelivery carries the same one."""
    action: InstallationAction
    seen_at: datetime
    installation_id: int
    account: str
    said_at: datetime
    """The installation's `updated_at`: GitHub's own date of its last change, which not every change moves."""
    is_suspended: bool
    takes_all: bool
    """Every repository of the account belongs to it, those that are still to come too."""
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    is_back: bool = False
    """It was taken for removed, and GitHub lists it."""


@dataclass(frozen=True)
class Said:
    """When something was said, so that an older word does not undo it."""

    said_at: datetime
    seen_at: datetime
    is_in: bool

    @property
    def order(self) -> tuple[datetime, datetime, bool]:
        """Later words are larger; one that adds beats one that removes at the same moment."""
        return self.said_at, self.seen_at, self.is_in


@dataclass(frozen=True)
class Installation:
    """The App in one account, as far as we were told."""

    id: int
    account: str
    state: InstallationState
    said_at: datetime
    """What GitHub dates earlier than this says nothing about the state any more."""
    rank: int = 0
    """Which of two words with one date stands."""
    takes_all: bool = False
    repositories: Mapping[str, Said] = field(default_factory=dict)
    """In lower case; only those of which something was said."""

    def is_out(self, repository: str) -> bool:
        """Say whether this repository was taken out of it."""
        said = self.repositories.get(repository.lower())
        return said is not None and not said.is_in

    def refusal(self, repository: str) -> str | None:
        """Say in words why nothing is done for this repository, None if all is well."""
        match self.state:
            case InstallationState.REMOVED:
                return f"the App was removed from {self.account}; install it there again and run the workflow again"
            case InstallationState.SUSPENDED:
                return f"the App is suspended in {self.account}; let its owner lift that and run the workflow again"
            case InstallationState.ACTIVE if self.is_out(repository):
                return f"{repository} was taken out of the App's installation; add it there and run the workflow again"
            case InstallationState.ACTIVE:
                return None


def heard(known: Installation | None, fact: InstallationFact) -> Installation:
    """Return what is known after this fact; order and doubles make no difference."""
    row = known or Installation(fact.installation_id, fact.account, InstallationState.ACTIVE, fact.said_at)
    if known is None or fact.is_back or (fact.said_at, _rank(fact)) > (row.said_at, row.rank):
        state = InstallationState.SUSPENDED if fact.is_suspended else InstallationState.ACTIVE
        row = replace(
            row,
            account=fact.account,
            state=row.state if row.state is InstallationState.REMOVED and not fact.is_back else state,
            said_at=fact.said_at,
            rank=_rank(fact),
            takes_all=fact.takes_all,
        )
    if fact.action is InstallationAction.DELETED:
        row = replace(row, state=InstallationState.REMOVED)
    return replace(row, repositories=_merged(row.repositories, fact))


def _rank(fact: InstallationFact) -> int:
    """Of words with one date that of the lifting comes last: a recorded `unsuspend` has the date of its `suspend`."""
    if fact.action is InstallationAction.UNSUSPEND:
        return 2
    return 1 if fact.is_suspended else 0


def _merged(known: Mapping[str, Said], fact: InstallationFact) -> Mapping[str, Said]:
    merged = dict(known)
    for names, is_in in ((fact.removed, False), (fact.added, True)):
        said = Said(fact.said_at, fact.seen_at, is_in)
        for name in map(str.lower, names):
            before = merged.get(name)
            if before is None or said.order > before.order:
                merged[name] = said
    return merged


@dataclass(frozen=True)
class Guests:
    """Whose jobs are served, as the administrator says: accounts, or numbers of installations."""

    allowed: frozenset[str] = frozenset()
    """Nobody is named: all are."""
    denied: frozenset[str] = frozenset()

    def refusal(self, installation_id: int, repository: str) -> str | None:
        """Say in words why a job is not served, None if it is."""
        account = repository.partition("/")[0]
        names = {account.lower(), str(installation_id)}
        if names & self.denied:
            return f"{account} (installation {installation_id}) is on the list of those who are denied"
        if self.allowed and not names & self.allowed:
            return f"{account} (installation {installation_id}) is not on the list of those who are allowed"
        return None


EVERYBODY: Final = Guests()


def guests(allowed: Iterable[str], denied: Iterable[str]) -> Guests:
    """Return the lists as the administrator wrote them. Raises `BadInput` for what can be no account and no number."""
    for name in (*allowed, *denied):
        if not ACCOUNT.fullmatch(name):
            raise BadInput(
                f"installations_allowed and _denied: {name!r} is neither an account nor the number of an installation; "
                "write the name that stands before the slash of its repositories"
            )
    return Guests(frozenset(map(str.lower, allowed)), frozenset(map(str.lower, denied)))
