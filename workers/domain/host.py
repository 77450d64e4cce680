"""A host: one machine that we use, rented or local.

    REQUESTED ──▶ LAUNCHING ──▶ PREPARING ──▶ READY ⇄ DRAINING ──▶ TERMINATING ──▶ TERMINATED
                      └────────────┴────────────┴────────┴──▶ LOST ─────▲

READY is proved by the host itself. LOST always goes to TERMINATING, so nothing
keeps billing. A host with a notice is DRAINING and does not come back.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum, auto
from typing import Final

from workers.domain.host_class import HostClass
from workers.domain.lifecycle import Lifecycle
from workers.domain.market import Sources
from workers.domain.names import HostId
from workers.domain.runner import Shape
from workers.domain.whereabouts import Machine


class HostState(StrEnum):
    REQUESTED = auto()
    LAUNCHING = auto()
    PREPARING = auto()
    READY = auto()
    DRAINING = auto()
    LOST = auto()
    TERMINATING = auto()
    TERMINATED = auto()


_H = HostState
HOST: Final = Lifecycle(
    first=_H.REQUESTED,
    moves={
        _H.REQUESTED: frozenset({_H.LAUNCHING, _H.TERMINATING}),
        _H.LAUNCHING: frozenset({_H.PREPARING, _H.LOST, _H.TERMINATING}),
        _H.PREPARING: frozenset({_H.READY, _H.LOST, _H.TERMINATING}),
        _H.READY: frozenset({_H.DRAINING, _H.LOST}),
        _H.DRAINING: frozenset({_H.READY, _H.LOST, _H.TERMINATING}),
        _H.LOST: frozenset({_H.TERMINATING}),
        _H.TERMINATING: frozenset({_H.TERMINATED}),
        _H.TERMINATED: frozenset(),
    },
)


# The exit status of a daemon that has ended because its machine is to end: nobody is to start it again.
POWERED_OFF: Final = 75


@dataclass(frozen=True)
class Host:
    """One machine."""

    id: HostId
    cloud: str
    state: HostState
    requested_at: datetime
    spec: Shape
    """What it has in all for microVMs."""
    instance_id: str | None = None
    address: str | None = None
    """Where its daemon answers, on the overlay."""
    host_class: HostClass | None = None
    heartbeat_at: datetime | None = None
    deadline_at: datetime | None = None
    """When the cloud takes it back, once there was a notice."""
    machine: Machine | None = None
    """What the cloud has told of it; None: nothing."""
    pool: str | None = None
    """The pool that it was bought for; others use it, too."""
    price: float | None = None
    """What an hour of it costs, in the currency of the settings; None: not known."""
    ended_at: datetime | None = None
    """When the cloud said that it is no more."""
    sources: Sources | None = None
    """Where that pool wants its hosts from; None: it does not mind."""


def room(host: Host, shapes: Iterable[Shape]) -> Shape:
    """Return what is left on a host that holds microVMs of these shapes; any figure may be negative."""
    taken = list(shapes)
    return Shape(
        vcpus=host.spec.vcpus - sum(shape.vcpus for shape in taken),
        memory_mib=host.spec.memory_mib - sum(shape.memory_mib for shape in taken),
        disk_mib=host.spec.disk_mib - sum(shape.disk_mib for shape in taken),
    )


def fits(shape: Shape, left: Shape) -> bool:
    """Say whether a microVM of this shape goes into what is left."""
    return shape.vcpus <= left.vcpus and shape.memory_mib <= left.memory_mib and shape.disk_mib <= left.disk_mib
