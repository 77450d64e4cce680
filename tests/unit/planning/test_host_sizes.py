"""Hosts of several sizes: the usual one for who fits on it, a larger one for who does not, and room for both."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.fakes.clock import FakeClock
from tests.fakes.hints import LossyHints
from tests.fakes.store import MemoryStore
from tests.unit.planning.rows import MINUTE, NOW, SMALL, SPEC, a_host, a_runner
from tests.unit.planning.test_buying import CAPACITY, LARGE, an_offer, bought, waiting
from workers.domain.host import HostState, fits
from workers.domain.job import Job, JobState
from workers.domain.offer import Offer
from workers.domain.runner import Shape
from workers.planning.buying import Order
from workers.planning.capacity import CapacityPolicy
from workers.planning.fleet import Fleet
from workers.planning.rooms import Rooms, Seat, shortages
from workers.reconcilers.capacity import Buyer
from workers.settings import ControlSettings

HUGE = Shape(SPEC.vcpus * 4, SPEC.memory_mib * 4, SPEC.disk_mib)
BIG, GIANT = Shape(SPEC.vcpus * 2, SPEC.memory_mib * 2, 4096), Shape(SPEC.vcpus * 3, SPEC.memory_mib * 3, 4096)
SIZES = replace(CAPACITY, larger=(LARGE, HUGE))
OF_SIZE = {SPEC: ("m8i.large", 0.1), LARGE: ("m8i.xlarge", 0.2), HUGE: ("m8i.2xlarge", 0.4)}


def offers(*zones: str, spot: bool = True) -> list[Offer]:
    return [an_offer(kind, zone, usd, room=size, spot=spot) for zone in zones for size, (kind, usd) in OF_SIZE.items()]


def asking(*shapes: Shape) -> list[Job]:
    jobs = waiting(len(shapes))
    terms = [replace(job.terms, shape=shape) for job, shape in zip(jobs, shapes, strict=True) if job.terms is not None]
    return [replace(job, terms=one) for job, one in zip(jobs, terms, strict=True)]


def sizes(orders: Sequence[Order]) -> list[Shape | None]:
    return [order.size for order in orders]


def test_a_larger_host_is_bought_for_whoever_fits_on_no_usual_one() -> None:
    capacity = replace(SIZES, keeps_room=False)
    found = bought(offers("a"), asking(SMALL, BIG, GIANT), capacity=capacity)
    assert sizes(found.orders) == [SPEC, LARGE, HUGE]
    assert [one.offer and one.offer.instance_type for one in found.orders] == [kind for kind, _ in OF_SIZE.values()]
    assert found.unmet == {}


def test_small_ones_fill_what_a_larger_host_has_left_and_none_is_bought_for_them() -> None:
    capacity = replace(SIZES, keeps_room=False)
    assert sizes(bought(offers("a"), asking(GIANT, SMALL), capacity=capacity).orders) == [HUGE]
    assert sizes(bought(offers("a"), asking(*[SMALL] * 8), capacity=capacity).orders) == [SPEC] * 4


def test_without_offers_the_cloud_is_asked_for_the_size() -> None:
    found = bought([], asking(SMALL, GIANT), capacity=SIZES)
    assert [(one.offer, one.size) for one in found.orders] == [(None, SPEC), (None, HUGE)]


def test_where_only_the_usual_price_is_known_a_larger_host_counts_by_as_much_as_it_is_larger() -> None:
    priced = replace(SIZES, price=0.5, usd_rate=None)
    assert [one.price for one in bought([], asking(SMALL, GIANT), capacity=priced).orders] == [0.5, 2.0]
    assert bought([], asking(GIANT), capacity=priced, left={"ci": 1.9}).orders == ()


def test_who_fits_on_none_is_told_the_largest() -> None:
    [because] = bought(offers("a"), asking(replace(GIANT, vcpus=99)), capacity=SIZES).unmet.values()
    assert because.startswith("it asks for 99 CPUs")
    assert f"{HUGE.vcpus} CPUs" in because


def test_an_offer_that_is_missing_is_named_with_its_size() -> None:
    only_usual = [an_offer("m8i.large", room=SPEC)]
    [because] = bought(only_usual, asking(BIG), capacity=SIZES).unmet.values()
    assert f"{LARGE.vcpus} CPUs" in because


def test_a_guest_that_must_leave_a_larger_host_gets_a_larger_host() -> None:
    left = replace(a_host("a", HostState.DRAINING, NOW + 2 * MINUTE), spec=HUGE)
    fleet = Fleet((left, a_host("b")), (replace(a_runner("r", "a"), shape=GIANT),))
    assert sizes(bought([], [], fleet=fleet, capacity=SIZES).orders) == [HUGE]


def test_room_for_a_larger_guest_is_kept_on_a_larger_host_elsewhere() -> None:
    found = bought(offers("a", "b"), asking(GIANT, SMALL, SMALL, SMALL), capacity=SIZES)
    lots = {(one.size, one.offer.zone) for one in found.orders if one.offer is not None}
    assert {zone for size, zone in lots if size == HUGE} == {"a", "b"}


def test_where_no_size_holds_all_that_would_be_lost_the_largest_decides() -> None:
    """One has many processors, the other much memory."""
    wide, deep = Shape(16, 2048, 65536), Shape(4, 16384, 65536)
    lot = an_offer().lot
    seats = [Seat(lot, SMALL, guests=[Shape(16, 1024, 1), Shape(1, 16384, 1)])]
    [short] = shortages(seats, (SPEC, wide, deep))
    assert (short.size, short.hosts) == (deep, 1)


@given(
    shapes=st.lists(st.sampled_from([SMALL, BIG, GIANT]), max_size=16),
    zones=st.lists(st.sampled_from("abc"), min_size=1, max_size=3, unique=True),
    is_steady=st.booleans(),
)
@settings(max_examples=150)
def test_everybody_gets_a_place_and_whatever_is_lost_has_one_elsewhere(
    shapes: list[Shape], zones: list[str], *, is_steady: bool
) -> None:
    there = offers(*zones) + (offers("z", spot=False) if is_steady else [])
    found = bought(there, asking(*shapes), capacity=SIZES)
    assert found.unmet == {}
    assert sum(one.size != SPEC and one.because == "jobs wait" for one in found.orders) <= sum(
        shape != SMALL for shape in shapes
    )
    rooms = Rooms(_seat(one) for one in found.orders)
    assert all(rooms.place(shape) is not None for shape in shapes)
    if len(zones) > 1:
        assert list(shortages(rooms.seats, SIZES.sizes)) == []


def _seat(order: Order) -> Seat:
    assert order.size is not None
    assert order.offer is not None
    assert fits(order.size, order.offer.room)
    return Seat(order.offer.lot, order.size, is_spot=order.offer.is_spot)


def test_the_host_that_is_written_down_has_the_size_that_was_chosen() -> None:
    clock = FakeClock(NOW)
    store = MemoryStore(clock)
    [job] = asking(GIANT)
    store.jobs.add(replace(job, state=JobState.QUEUED))
    capacity = CapacityPolicy("aws", SPEC, ready_hosts=0, hosts_max=3, larger=(LARGE, HUGE))
    Buyer(store, LossyHints(random.Random(0)), clock, capacity).buy()
    [host] = store.hosts.open()
    assert host.spec == HUGE


def test_settings_name_the_larger_sizes_and_the_smallest_comes_first() -> None:
    told = ControlSettings(host_vcpus=4, larger_hosts=((32, 131072, 65536), (16, 65536, 65536)))
    assert [one.vcpus for one in told.host_sizes] == [4, 16, 32]
    with pytest.raises(ValidationError, match="larger_hosts"):
        ControlSettings(larger_hosts=((0, 1, 1),))


def test_nothing_is_bought_larger_than_usual_unless_it_is_named() -> None:
    assert CAPACITY.sizes == (SPEC,)
    assert bought(offers("a"), asking(BIG)).orders == ()
