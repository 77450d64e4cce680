"""What hosts and the relay are told of a runner: everything follows from its row."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from workers.domain.host import Host
from workers.domain.messages import BootOrder, MoveOrder, ParkOrder
from workers.domain.migration import Migration
from workers.domain.runner import Runner, Shape
from workers.domain.whereabouts import Machine, Whereabouts


def whereabouts(shape: Shape, host: Host | None) -> Whereabouts:
    """Return what a guest of this shape may be told of the host that it is on, or will be.

    It pays for what it takes of the machine, of processors or of memory, whichever is more.
    """
    if host is None:
        return Whereabouts()
    machine = host.machine or Machine()
    part = min(1.0, max(shape.vcpus / host.spec.vcpus, shape.memory_mib / host.spec.memory_mib))
    price = None if machine.usd_per_hour is None else machine.usd_per_hour * part
    return Whereabouts(host.cloud, replace(machine, addresses=None), price)


def boot_order(runner: Runner, host: Host | None) -> BootOrder:
    """Return the order that makes this runner's microVM on this host, or on one that it comes to."""
    return BootOrder(
        runner_id=runner.id,
        epoch=runner.epoch,
        number=runner.number,
        package=runner.package,
        shape=runner.shape,
        address=runner.address,
        hold_limit_s=runner.hold_limit_s,
        network=runner.network,
        whereabouts=whereabouts(runner.shape, host),
    )


def move_order(
    move: Migration,
    runner: Runner,
    peer: Host | None,
    now: datetime,
    park: ParkOrder | None = None,
    target: Host | None = None,
    stored: Migration | None = None,
) -> MoveOrder:
    """Return one side's part in a migration.

    `peer` is the other side, None the store, and then `park` is how; `target` is where the guest will be; `stored` is
    the park that it is taken out of.
    """
    return MoveOrder(
        migration_id=move.id,
        runner=replace(boot_order(runner, target), epoch=move.epoch),
        peer=peer.id if peer else None,
        peer_address=(peer.address if peer else None) or "",
        seconds_left=max(0.0, (move.deadline_at - now).total_seconds()),
        moves=move.epoch - 1,  # the first epoch is the boot's, and every commit begins another one
        ports=move.ports,
        share_mib_s=move.share_mib_s,
        park=park,
        stood_s=None if stored is None or move.is_park else stood_s(runner, stored, now),
    )


def stood_s(runner: Runner, park: Migration, now: datetime) -> float | None:
    """Return how long a guest that lies in the store has stood still; each span is of one clock. None: not known."""
    stopped_at, stored_at = park.figures.get("stopped_at"), park.figures.get("stored_at")
    if runner.parked_at is None or stopped_at is None or stored_at is None:
        return None
    return max(0.0, stored_at - stopped_at) + max(0.0, (now - runner.parked_at).total_seconds())
