"""What the report says of the clouds: prices, what each host and the job cost, and how the interruption went. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from workers.domain.events import Event, Happening
from workers.domain.host import Host
from workers.domain.names import HostId
from workers.domain.runner import Shape
from workers.domain.whereabouts import Machine
from workers.planning.orders import whereabouts
from workers.rehearsal.clouds.costs import Stay, ec2_bill, hetzner_bill, job_cost

Json = dict[str, Any]

AWS: Final = "aws"
# What each stage is called, and the entry of the timeline that ends it: of the target, of the move, of the source.
OF_TARGET: Final = {
    "target_wanted": Happening.HOST_REQUESTED,
    "target_launched": Happening.HOST_LAUNCHED,
    "target_running": Happening.HOST_RUNNING,
    "target_registered": Happening.HOST_REGISTERED,
    "target_ready": Happening.HOST_READY,
}
OF_MOVE: Final = {
    "move_planned": Happening.MIGRATION_PLANNED,
    "committed": Happening.MIGRATION_COMMITTED,
    "guest_runs": Happening.MIGRATION_RUNNING,
}
OF_SOURCE: Final = {"source_gone": Happening.HOST_TERMINATED}


@dataclass(frozen=True)
class Rented:
    """What one job was run on."""

    shape: Shape
    """Of its runner."""
    hosts: Mapping[HostId, Host]
    """All that were rented."""
    events: Sequence[Event]
    stays: Sequence[tuple[HostId, float]]
    """Where its guest was, and since when: the first since the job's first step."""
    ended_at: float
    taken_back: HostId | None
    full_prices: Mapping[str, float]
    """Instance type -> what an hour of it costs on demand."""
    now: float
    events_taken: int
    """How many of the cloud's own events were taken out of its queue."""

    def price(self, host: Host) -> float:
        """Return what an hour of a host costs."""
        return (host.machine or Machine()).usd_per_hour or 0.0

    def full_price(self, host: Host) -> float:
        """Return what it would cost on demand."""
        kind = (host.machine or Machine()).instance_type or ""
        return self.full_prices.get(kind, self.price(host))


def bill(rented: Rented) -> Json:
    """Return what is reported."""
    return {
        "hosts": {name: _host(host, rented) for name, host in rented.hosts.items()},
        "job": _job(rented),
        "refused": [str(one.detail.get("because")) for one in _all(rented.events, Happening.LAUNCH_REFUSED)],
        "notices": list(_notices(rented)),
        "events_taken": rented.events_taken,
        "since_notice_s": dict(_stages(rented)),
    }


def _host(host: Host, rented: Rented) -> Json:
    machine, price = host.machine or Machine(), rented.price(host)
    begun = _first(rented.events, Happening.HOST_LAUNCHED, host.id)
    ended = _first(rented.events, Happening.HOST_TERMINATED, host.id) or rented.now
    ran_s = 0.0 if begun is None else ended - begun
    # What is given back before the deadline was not taken back, and is billed.
    is_taken = host.id == rented.taken_back and host.deadline_at is not None and ended >= host.deadline_at.timestamp()
    cost = ec2_bill(price, ran_s, was_taken_back=is_taken) if host.cloud == AWS else hetzner_bill(price, ran_s)
    return {
        "cloud": host.cloud,
        "instance": host.instance_id,
        "type": machine.instance_type,
        "zone": machine.zone,
        "terms": machine.lifecycle,
        "usd_per_hour": price,
        "on_demand_usd_per_hour": rented.full_price(host),
        "rented_s": round(ran_s, 1),
        "billed_usd": round(cost, 4),
    }


def _job(rented: Rented) -> Json:
    borders = [*(since for _, since in rented.stays), rented.ended_at]
    stays = [_stay(rented, *one, ended) for one, ended in zip(rented.stays, borders[1:], strict=True)]
    figures = {name: round(value, 6) for name, value in asdict(job_cost(stays)).items()}
    return {"seconds": round(borders[-1] - borders[0], 1), "on": [one.host for one in stays], **figures}


def _stay(rented: Rented, name: HostId, begun: float, ended: float) -> Stay:
    host = rented.hosts[name]
    return Stay(
        name, begun, ended, _part(rented, host, rented.price(host)), _part(rented, host, rented.full_price(host))
    )


def _part(rented: Rented, host: Host, price: float) -> float:
    """Return what of a host's price is the job's: as much as it is told itself (docs/action.md)."""
    priced = replace(host, machine=replace(host.machine or Machine(), usd_per_hour=price))
    return whereabouts(rented.shape, priced).usd_per_hour or 0.0


def _notices(rented: Rented) -> Iterator[Json]:
    """Yield by which ways the notice came: the host's metadata, or the cloud's events."""
    found = [one for one in _all(rented.events, Happening.HOST_NOTICE) if one.host_id == rented.taken_back]
    for one in found:
        since = (one.at - found[0].at).total_seconds()
        yield {"by": one.detail.get("by", "metadata"), "after_s": round(since, 3)}


def _stages(rented: Rented) -> Iterator[tuple[str, float]]:
    """Yield how long after the first notice each stage had been reached."""
    begun = _first(rented.events, Happening.HOST_NOTICE, rented.taken_back)
    if begun is None or len(rented.stays) < 2:  # noqa: PLR2004 a source and a target
        return
    target, source = rented.stays[1][0], rented.stays[0][0]
    for stages, host in ((OF_TARGET, target), (OF_MOVE, None), (OF_SOURCE, source)):
        for name, happening in stages.items():
            at = _first(rented.events, happening, host)
            if at is not None:
                yield name, round(at - begun, 3)


def _all(events: Sequence[Event], happening: Happening) -> Iterator[Event]:
    return (one for one in events if one.happening is happening)


def _first(events: Sequence[Event], happening: Happening, host: HostId | None) -> float | None:
    """Return when this first happened, to this host if one is named."""
    fit = (one.at.timestamp() for one in _all(events, happening) if host is None or one.host_id == host)
    return next(fit, None)
