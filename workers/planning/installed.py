"""What the list of our Apps' installations says that no delivery has told us: pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from workers.domain.events import Delivery
from workers.domain.installation import Installation, InstallationAction, InstallationFact, InstallationState, heard
from workers.domain.listed import InstallationListed


def word(
    listed: InstallationListed, repositories: Iterable[str], row: Installation | None, asked_at: datetime
) -> Delivery | None:
    """Return what goes beyond the row as if it had been delivered when it was asked for; None if nothing does.

    One without a row was told us by nobody, and counts as active. A repository that is not in the list is not taken for
    removed: there may be more of them than are read.
    """
    action = InstallationAction.SUSPEND if listed.is_suspended else InstallationAction.UNSUSPEND
    fact = InstallationFact(
        delivery=f"list-{listed.id}-{action.value}-{asked_at.isoformat()}",
        action=action,
        seen_at=asked_at,
        installation_id=listed.id,
        account=listed.account,
        said_at=listed.said_at,
        is_suspended=listed.is_suspended,
        takes_all=listed.takes_all,
        added=tuple(name for name in repositories if row is not None and row.is_out(name)),
    )
    before, after = InstallationState.ACTIVE if row is None else row.state, heard(row, fact)
    is_in_again = any(not after.is_out(name) for name in fact.added)
    if before is InstallationState.REMOVED or (after.state is before and not is_in_again):
        return None
    return _delivery(fact)


def is_doubtful(row: Installation | None, *, is_listed: bool) -> bool:
    """Say whether the list of all installations says otherwise than the row about whether our App is there."""
    return is_listed is (row is not None and row.state is InstallationState.REMOVED)


def gone(installation_id: int, account: str, asked_at: datetime) -> Delivery:
    """Say of an installation that no App of ours lists that it was removed."""
    return _delivery(
        InstallationFact(
            delivery=f"list-{installation_id}-gone-{asked_at.isoformat()}",
            action=InstallationAction.DELETED,
            seen_at=asked_at,
            installation_id=installation_id,
            account=account,
            said_at=asked_at,
            is_suspended=False,
            takes_all=False,
        )
    )


def back(listed: InstallationListed, asked_at: datetime) -> Delivery:
    """Say of an installation that was taken for removed that it is there: GitHub uses no number twice."""
    return _delivery(
        InstallationFact(
            delivery=f"list-{listed.id}-back-{asked_at.isoformat()}",
            action=InstallationAction.CREATED,
            seen_at=asked_at,
            installation_id=listed.id,
            account=listed.account,
            said_at=listed.said_at,
            is_suspended=listed.is_suspended,
            takes_all=listed.takes_all,
            is_back=True,
        )
    )


def _delivery(fact: InstallationFact) -> Delivery:
    return Delivery(fact.delivery, "installation", fact.action.value, fact.seen_at, b"", installation=fact)


def lacks_some(row: Installation) -> bool:
    """Say whether we were told that some repository was taken out of it."""
    return any(not said.is_in for said in row.repositories.values())
