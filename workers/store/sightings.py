"""What was heard lately: which deliveries, from which repositories, and of which microVMs."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, func, select

from workers.domain.host import HostState
from workers.domain.listed import Scope
from workers.domain.messages import RunnerReport
from workers.domain.names import HostId
from workers.store.rows import REPORTS
from workers.store.schema import deliveries, facts, hosts, reports

# Facts are only ever added, so the last ones are found by their numbers, however many there are in all.
LAST_FACTS: Final = 20_000
# A database takes some thousand parameters in one statement.
AT_ONCE: Final = 500
HEARD: Final = (HostState.READY.value, HostState.DRAINING.value)


def known_deliveries(connection: Connection, guids: Collection[str]) -> set[str]:
    """Return which of these have been written down."""
    asked, found = sorted(guids), set[str]()
    for first in range(0, len(asked), AT_ONCE):
        some = asked[first : first + AT_ONCE]
        found.update(connection.scalars(select(deliveries.c.guid).where(deliveries.c.guid.in_(some))))
    return found


def active_repositories(connection: Connection, since: datetime) -> list[Scope]:
    """Return where jobs were last heard of since then, the latest first, among the last facts."""
    first = select(func.coalesce(func.max(facts.c.number), 0) - LAST_FACTS).scalar_subquery()
    place = (facts.c.installation_id, facts.c.repository)
    query = (
        select(*place)
        .where(facts.c.number > first, facts.c.seen_at >= since)
        .group_by(*place)
        .order_by(func.max(facts.c.number).desc())
    )
    return [Scope(installation_id, repository) for installation_id, repository in connection.execute(query)]


def reported(connection: Connection, since: datetime) -> dict[HostId, list[RunnerReport]]:
    """Return what each host has said of its microVMs in its last heartbeat; one statement, so one moment."""
    is_last = (reports.c.host_id == hosts.c.id) & (reports.c.seen_at == hosts.c.heartbeat_at)
    query = (
        select(hosts.c.id.label("reporter"), reports)
        .outerjoin(reports, is_last)
        .where(hosts.c.state.in_(HEARD), hosts.c.heartbeat_at >= since)
    )
    found: dict[HostId, list[RunnerReport]] = {}
    for row in connection.execute(query).mappings():
        said = found.setdefault(HostId(row["reporter"]), [])
        if row["runner_id"] is not None:
            said.append(REPORTS.row(row))
    return found
