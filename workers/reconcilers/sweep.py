"""What is looked at although nobody hinted at it, and what only follows from the rows and is made anew from them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from workers.domain.names import HostId, JobId, MigrationId, RunnerId
from workers.domain.runner import RunnerState
from workers.ports import Forwarding, Hints, Relay, Store
from workers.reconcilers.capacity import Buyer
from workers.reconcilers.hosts import Hosts
from workers.reconcilers.hub import Hub
from workers.reconcilers.jobs import Jobs
from workers.reconcilers.migrations import Migrations
from workers.reconcilers.parks import Parks
from workers.reconcilers.patience import patience
from workers.reconcilers.recovery import Recovery
from workers.reconcilers.retention import Retention
from workers.reconcilers.runners import Runners
from workers.reconcilers.stock import Stockroom


@dataclass(frozen=True)
class Reconcilers:
    """One of each kind."""

    jobs: Jobs
    runners: Runners
    hosts: Hosts
    migrations: Migrations
    parks: Parks
    hub: Hub | None = None
    """Of the overlay, if the deployment has one."""
    recovery: Recovery | None = None
    stock: Stockroom | None = None
    retention: Retention | None = None

    def look_at(self, kind: str, key: str) -> None:
        """Advance one row; `kind` and `key` are a hint's."""
        match kind:
            case "job":
                self.jobs.advance(JobId(int(key)))
            case "runner":
                self.runners.advance(RunnerId(key))
            case "host":
                self._advance_host(HostId(key))
            case "remark":
                self.jobs.answers.advance(key)
            case "migration":
                self.migrations.advance(MigrationId(key))
                self.parks.advance(MigrationId(key))
            case "installation":
                self.jobs.look_at_all_of(int(key))
            case "offers" if self.stock is not None:
                self.stock.refresh(key)
            case "retention" if self.retention is not None:
                self.retention.look()
            case "recovery" if self.recovery is not None:
                self.recovery.look(key)
            case _:
                known = "job, runner, host, migration, installation and remark"
                raise ValueError(f"a hint about {kind!r}; known are {known}")

    def _advance_host(self, key: HostId) -> None:
        if self.hub is not None:
            self.hub.follow()  # one that has just registered is let in before anybody calls it
        self.hosts.advance(key)
        if self.hub is not None:
            self.hub.follow()  # and one that has just ended is shut out


class Sweep:
    """Names what is urgent, and refreshes what is only a projection of the rows."""

    def __init__(self, store: Store, relay: Relay, hints: Hints, buyer: Buyer, reconcilers: Reconcilers) -> None:
        self._store, self._relay, self._hints = store, relay, hints
        self._buyer, self._reconcilers = buyer, reconcilers

    def urgent(self) -> Iterator[tuple[str, str]]:
        """Name what cannot wait for a hint."""
        yield from (("migration", key) for key in self._reconcilers.migrations.due())
        for host_id in self._reconcilers.hosts.due_now():
            yield "host", host_id
            runners = self._store.runners_on(host_id)
            yield from (("runner", one.id) for one in runners if one.state is not RunnerState.BUSY)

    def refresh(self) -> None:
        """Renew what only follows from the rows: the relay's table, the hosts on order, the end of what has leaked."""
        if self._reconcilers.hub is not None:
            self._reconcilers.hub.refresh()
        with patience("relay", "table"):
            self._relay.replace_all(self.forwardings())
        with patience("capacity", "hosts"):
            self._buyer.buy()
        self._reconcilers.hosts.end_leaked()
        self._reconcilers.parks.end_leaked()

    def forwardings(self) -> list[Forwarding]:
        """Return the relay's whole table as the rows would have it."""
        address_of = {host.id: host.address for host in self._store.hosts.open() if host.address}
        return [
            Forwarding(runner.id, runner.epoch, runner.address, address_of[runner.host_id])
            for runner in self._store.runners.open()
            if runner.host_id in address_of
        ]
