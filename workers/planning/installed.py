"""What the list of our Apps' installations says that no delivery has told us: pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from workers.domain.events import Delivery
from workers.domain.installation import Installation, InstallationAction, InstallationFact, InstallationState, heard
from workers.domain.listed import InstallationListed


def word(
    listed: InstallationListed, repositories: Iterable[str], row: Installation, asked_at: datetime
) -> Delivery | None:
    """Return what goes beyond the row as if it had been delivered when it was asked for; None if nothing does.

    A repository that is not in the list is not taken for removed: there may be more of them than are read.
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
        added=tuple(name for name in repositories if row.is_out(name)),
    )
    after = heard(row, fact)
    is_in_again = any(not after.is_out(name) for name in fact.added)
    if row.state is InstallationState.REMOVED or (after.state is row.state and not is_in_again):
        return None
    return Delivery(fact.delivery, "installation", action.value, asked_at, b"", installation=fact)


def lacks_some(row: Installation) -> bool:
    """Say whether we were told that some repository was taken out of it."""
    return any(not said.is_in for said in row.repositories.values())
