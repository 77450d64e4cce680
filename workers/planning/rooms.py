"""Rooms: what hosts have left, how it is filled, and whether what one notice may take away would fit elsewhere.

hosts ─▶ seats, each of one lot ─▶ for each spot lot: its guests into the room of the others ─▶ hosts that are short
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from workers.domain.host import Host, fits
from workers.domain.market import Lot, Market, SpotPool
from workers.domain.offer import ANY, Likeness, Offer, likeness_of
from workers.domain.runner import Shape
from workers.planning.fleet import Fleet, is_coming, minus

ON_DEMAND: Final = "on-demand"
# A cloud that does not say what it has given us may take all of it back at once.
UNTOLD: Final = SpotPool("?", "?")


@dataclass
class Seat:
    """One host, there or to be."""

    lot: Lot
    left: Shape
    likeness: Likeness = ANY
    is_spot: bool = True
    guests: list[Shape] = field(default_factory=list)
    pool: str | None = None


class Rooms:
    """Fills seats, the first that fits. Rooms only shrink: where one guest has not fitted, none like it is tried."""

    def __init__(self, seats: Iterable[Seat] = ()) -> None:
        self.seats = list(seats)
        self._tried: Counter[tuple[Shape, Likeness]] = Counter()

    def place(self, shape: Shape, wanted: Likeness = ANY) -> Seat | None:
        """Put a guest where it fits; None if it fits nowhere."""
        kind = shape, wanted
        tried = self._tried[kind]
        for number in range(tried, len(self.seats)):
            seat = self.seats[number]
            if fits(shape, seat.left) and wanted.admits(seat.likeness):
                if number > tried:
                    self._tried[kind] = number
                seat.left = minus(seat.left, shape)
                seat.guests.append(shape)
                return seat
        self._tried[kind] = len(self.seats)
        return None


@dataclass(frozen=True)
class Shortage:
    """What would be missing if one lot were taken back."""

    lot: Lot
    hosts: int
    """So many empty hosts elsewhere would do."""
    size: Shape
    """Each of this size."""
    likeness: Likeness
    """Of these."""
    pool: str | None
    """Whose hosts most of the lot's are."""

    def is_served(self, size: Shape, likeness: Likeness) -> bool:
        """Say whether an empty host of this size and kind is one of those."""
        return fits(self.size, size) and self.likeness.admits(likeness)


def lot_of(host: Host) -> Lot:
    """Return what is taken back together with a host: what the cloud has given, or else what was chosen."""
    machine, pick = host.machine, host.sources.pick if host.sources is not None else None
    if machine is not None and machine.instance_type is not None and machine.zone is not None:
        return Lot(host.cloud, SpotPool(machine.instance_type, machine.zone))
    return Lot(host.cloud, pick or UNTOLD)


def seats_of(fleet: Fleet, offers: Iterable[Offer] = ()) -> list[Seat]:
    """Return the hosts that take runners or will soon, those that do first."""
    told = {one.lot: one.likeness for one in offers}
    there = [host for host in fleet.hosts if fleet.takes(host)]
    coming = [host for host in fleet.hosts if is_coming(host)]
    return [_seat(host, fleet, told) for host in (*there, *coming)]


def size_for(shapes: Iterable[Shape], sizes: Iterable[Shape]) -> Shape | None:
    """Return the first size of a host that holds each of these, one at a time; None: there is none."""
    wanted = set(shapes)
    return next((size for size in sizes if all(fits(shape, size) for shape in wanted)), None)


def shortages(seats: Sequence[Seat], sizes: Sequence[Shape]) -> Iterator[Shortage]:
    """Yield the spot lots whose guests would not all fit elsewhere; `sizes` are the rooms of empty hosts.

    Guests that are larger than others by whole multiples are packed as tightly as can be; of other mixtures a host
    more may be called for than the best packing would need.
    """
    of_lot = defaultdict[Lot, list[Seat]](list)
    for seat in seats:
        if seat.is_spot and seat.guests:
            of_lot[seat.lot].append(seat)
    # Of full hosts, which most are, nothing has to be asked.
    smallest = _smallest(shape for own in of_lot.values() for seat in own for shape in seat.guests)
    open_seats = [seat for seat in seats if smallest is not None and fits(smallest, seat.left)]
    for lot, own in of_lot.items():
        elsewhere = (one for one in open_seats if not (one.is_spot and one.lot == lot))
        missing = [shape for shape in _left_over(own, elsewhere) if size_for((shape,), sizes) is not None]
        # Where no size holds them all, the largest decides.
        size = size_for(missing, sizes) or size_for(missing[:1], sizes)
        if missing and size is not None:
            pools = Counter(seat.pool for seat in own)
            yield Shortage(lot, hosts_for(missing, size), size, own[0].likeness, pools.most_common(1)[0][0])


def hosts_for(shapes: Iterable[Shape], spec: Shape) -> int:
    """Return how many empty hosts these shapes fill; what no host could ever hold counts for none."""
    rooms = Rooms()
    for shape in shapes:
        if fits(shape, spec) and rooms.place(shape) is None:
            rooms.seats.append(Seat(Lot("", UNTOLD), minus(spec, shape)))
    return len(rooms.seats)


def _seat(host: Host, fleet: Fleet, told: Mapping[Lot, Likeness]) -> Seat:
    lot, guests = lot_of(host), [one.shape for one in fleet.runners_of(host.id)]
    likeness = told.get(lot) or likeness_of(host.host_class)
    return Seat(lot, fleet.left(host), likeness, _is_spot(host), guests, host.pool)


def _is_spot(host: Host) -> bool:
    """Say whether a host may be taken back; where nobody says, it may."""
    if host.machine is not None and host.machine.lifecycle is not None:
        return host.machine.lifecycle != ON_DEMAND
    return host.sources is None or host.sources.market is not Market.ON_DEMAND


def _left_over(own: Sequence[Seat], elsewhere: Iterable[Seat]) -> list[Shape]:
    """Return which guests of a lot would fit nowhere, the largest first."""
    likeness = own[0].likeness
    rooms = Rooms(Seat(one.lot, one.left) for one in elsewhere if likeness.admits(one.likeness))
    guests = sorted((shape for seat in own for shape in seat.guests), key=_size, reverse=True)
    return [shape for shape in guests if rooms.place(shape) is None]


def _size(shape: Shape) -> tuple[int, int, int]:
    return shape.memory_mib, shape.vcpus, shape.disk_mib


def _smallest(shapes: Iterable[Shape]) -> Shape | None:
    """Return a shape that fits wherever any of these does."""
    found = set(shapes)
    if not found:
        return None
    return Shape(
        min(one.vcpus for one in found), min(one.memory_mib for one in found), min(one.disk_mib for one in found)
    )
