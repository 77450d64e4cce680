"""What hosts and the relay are told of a runner: everything follows from its row."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from workers.domain.host import Host
from workers.domain.messages import BootOrder, MoveOrder, ParkOrder
from workers.domain.migration import Migration
from workers.domain.runner import Runner


def boot_order(runner: Runner) -> BootOrder:
    """Return the order that makes this runner's microVM."""
    return BootOrder(
        runner_id=runner.id,
        epoch=runner.epoch,
        number=runner.number,
        package=runner.package,
        shape=runner.shape,
        address=runner.address,
        hold_limit_s=runner.hold_limit_s,
        network=runner.network,
    )


def move_order(
    move: Migration, runner: Runner, peer: Host | None, now: datetime, park: ParkOrder | None = None
) -> MoveOrder:
    """Return one side's part in a migration; `peer` is the other side, None the store, and then `park` is how."""
    return MoveOrder(
        migration_id=move.id,
        runner=replace(boot_order(runner), epoch=move.epoch),
        peer=peer.id if peer else None,
        peer_address=(peer.address if peer else None) or "",
        seconds_left=max(0.0, (move.deadline_at - now).total_seconds()),
        moves=move.epoch - 1,  # the first epoch is the boot's, and every commit begins another one
        ports=move.ports,
        share_mib_s=move.share_mib_s,
        park=park,
    )
