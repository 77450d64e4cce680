"""What is bought of many offers: cheaply, for whom it is meant, within the budget, and so that no notice takes all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.unit.planning.rows import MINUTE, NOW, SMALL, SPEC, a_host, a_job, a_runner
from workers.domain.architecture import Architecture
from workers.domain.host import Host, HostState
from workers.domain.host_class import Acceleration
from workers.domain.job import Job
from workers.domain.labels import Interrupt
from workers.domain.market import ANYWHERE, Lot, Market, Sources, SpotPool
from workers.domain.names import HostId, PackageDigest
from workers.domain.offer import ANY, Likeness, Offer
from workers.domain.overlay import GuestNetwork
from workers.domain.pools import Package, Policy, Pool, Terms
from workers.domain.runner import Shape
from workers.domain.whereabouts import Machine
from workers.planning.buying import Order, Purchase, orders, purchase
from workers.planning.capacity import CapacityPolicy, is_surplus
from workers.planning.fleet import Fleet
from workers.planning.offers import Shelf
from workers.planning.paid_time import BY_THE_HOUR

KVM = Likeness(Architecture.X86_64, Acceleration.KVM, "GenuineIntel")
PVM = Likeness(Architecture.X86_64, Acceleration.PVM, "GenuineIntel")
ARM = Likeness(Architecture.ARM64, Acceleration.KVM, "ARM")
KINDS = {"kvm": KVM, "pvm": PVM, "arm": ARM}
FOR_KVM, FOR_PVM = PackageDigest("sha256:0a"), PackageDigest("sha256:0b")
PACKAGES = (
    Package("kvm", FOR_KVM, SMALL, Likeness(Architecture.X86_64, Acceleration.KVM)),
    Package("pvm", FOR_PVM, SMALL, Likeness(Architecture.X86_64, Acceleration.PVM)),
)
LARGE = Shape(SPEC.vcpus * 2, SPEC.memory_mib * 2, SPEC.disk_mib * 2)
# Two small ones fill a host: its memory is what runs out.
PER_HOST = 2
# By whole hours, so what a host costs at least is its price.
CAPACITY = CapacityPolicy("aws", SPEC, ready_hosts=0, hosts_max=1000, usd_rate=1.0, billing=BY_THE_HOUR)
NOTHING = Fleet((), ())


def an_offer(
    kind: str = "m8i.2xlarge", zone: str = "a", usd: float = 0.1, *, cloud: str = "aws", spot: bool = True,
    likeness: Likeness = KVM, risk: float = 0.0, room: Shape = SPEC,
) -> Offer:  # fmt: skip
    return Offer(cloud, f"{cloud}-1", zone, kind, room, usd, spot, likeness, risk)


def waiting(count: int, pool: str = "ci", package: PackageDigest = FOR_KVM, first: int = 0) -> list[Job]:
    terms = Terms(pool, package, "debian-12", SMALL, GuestNetwork.RELAY, Interrupt.MOVE)
    return [replace(a_job(first + number), terms=terms) for number in range(count)]


def bought(
    offers: Sequence[Offer],
    jobs: Sequence[Job],
    *pools: Pool,
    fleet: Fleet = NOTHING,
    capacity: CapacityPolicy = CAPACITY,
    left: dict[str, float] | None = None,
) -> Purchase:
    policy = Policy(pools or (Pool("ci"),), PACKAGES)
    return purchase(fleet, jobs, replace(capacity, offers=tuple(offers)), policy, NOW, left or {})


def lots(orders_: Sequence[Order]) -> Counter[Lot]:
    return Counter(one.offer.lot for one in orders_ if one.offer is not None)


def rented(name: str, offer: Offer, state: HostState = HostState.READY) -> Host:
    machine = Machine(offer.region, offer.zone, offer.instance_type, "spot" if offer.is_spot else "on-demand")
    return replace(a_host("a", state), id=HostId(name), cloud=offer.cloud, machine=machine, pool="ci")


# ---------------------------------------------------------------- one thing at a time


def test_the_cheapest_that_will_do_is_taken_and_the_order_says_which_and_why() -> None:
    dear, cheap, small = an_offer(usd=0.3), an_offer("c8i", usd=0.1), an_offer("tiny", usd=0.01, room=SMALL)
    found = bought([dear, cheap, small], waiting(1), capacity=replace(CAPACITY, keeps_room=False))
    [order] = found.orders
    assert (order.offer, order.price, order.pool, order.because) == (cheap, 0.1, "ci", "jobs wait")
    assert order.sources == Sources(pick=SpotPool("c8i", "a"))


def test_a_job_that_gets_no_room_is_named_with_the_reason() -> None:
    full = bought([an_offer()], waiting(2 * PER_HOST), capacity=replace(CAPACITY, hosts_max=1, keeps_room=False))
    served, unserved = waiting(2 * PER_HOST)[:PER_HOST], waiting(2 * PER_HOST)[PER_HOST:]
    assert full.unmet == {job.id: "there may be no more than 1 hosts (SPOT_RUNNER_HOSTS_MAX)" for job in unserved}
    assert len(full.orders) == 1
    assert not {job.id for job in served} & set(full.unmet)

    [job] = waiting(1)
    assert job.terms is not None
    job = replace(job, terms=replace(job.terms, shape=LARGE))
    [because] = bought([an_offer()], [job]).unmet.values()
    assert because.startswith(f"it asks for {LARGE.vcpus} CPUs")

    sold_out = bought([an_offer(likeness=ARM)], waiting(1))
    assert sold_out.unmet == {waiting(1)[0].id: sold_out.missing[0]}


def test_what_is_often_taken_back_counts_as_dearer() -> None:
    risky, steady = an_offer("risky", usd=0.10, risk=0.5), an_offer("steady", usd=0.14)
    found = bought([risky, steady], waiting(1), capacity=replace(CAPACITY, keeps_room=False))
    assert lots(found.orders) == {steady.lot: 1}


def test_room_for_the_first_host_is_kept_in_another_lot() -> None:
    here, there = an_offer(zone="a"), an_offer(zone="b", usd=0.2)
    found = bought([here, there], waiting(PER_HOST))
    assert lots(found.orders) == {here.lot: 1, there.lot: 1}
    assert [one.because for one in found.orders] == ["jobs wait", f"room in case {here.lot} is taken back"]


def test_hosts_are_spread_as_long_as_that_is_cheaper_than_more_spare_ones() -> None:
    alike = [an_offer(zone=zone, usd=0.1) for zone in "abcd"]
    found = bought(alike, waiting(3 * PER_HOST))
    assert lots(found.orders) == {one.lot: 1 for one in alike}, "three in use, and one spare is enough"
    dear = [an_offer(zone="a"), an_offer(zone="b"), an_offer(zone="c", usd=10.0)]
    assert lots(bought(dear, waiting(3 * PER_HOST)).orders)[dear[2].lot] == 0


def test_what_is_never_taken_back_needs_no_spare() -> None:
    spot, steady = an_offer(usd=0.1), an_offer("cx52", "fsn1", 0.15, cloud="hetzner", spot=False)
    found = bought([spot, steady], waiting(5 * PER_HOST))
    assert lots(found.orders) == {steady.lot: 5}


def test_where_offers_allow_no_room_elsewhere_jobs_run_all_the_same_and_it_is_told() -> None:
    only = an_offer()
    found = bought([only], waiting(PER_HOST))
    assert lots(found.orders) == {only.lot: 1}
    assert found.missing == (f"no offer elsewhere has room for what runs on {only.lot}",)


def test_room_that_is_there_already_is_not_bought_again() -> None:
    here, there = an_offer(zone="a"), an_offer(zone="b")
    fleet = Fleet((rented("a", here), rented("b", there)), (a_runner("r", "a"),))
    assert bought([here, there], [], fleet=fleet).orders == ()
    coming = Fleet((rented("a", here), rented("b", there, HostState.LAUNCHING)), (a_runner("r", "a"),))
    assert bought([here, there], [], fleet=coming).orders == ()


def test_a_host_that_is_only_asked_for_is_of_the_lot_that_was_chosen() -> None:
    here, there = an_offer(zone="a"), an_offer(zone="b")
    asked = replace(rented("b", there, HostState.REQUESTED), machine=None, sources=Sources(pick=there.lot.pool))
    fleet = Fleet((rented("a", here), asked), (a_runner("r", "a"),))
    assert bought([here, there], [], fleet=fleet).orders == ()
    same = replace(asked, sources=Sources(pick=here.lot.pool))
    fleet = Fleet((rented("a", here), same), (a_runner("r", "a"),))
    assert lots(bought([here, there], [], fleet=fleet).orders) == {there.lot: 1}


def test_an_empty_host_is_kept_as_long_as_it_is_where_guests_would_go() -> None:
    here, there = an_offer(zone="a"), an_offer(zone="b")
    capacity, ends = replace(CAPACITY, offers=(here, there)), NOW + 59 * MINUTE
    spare = rented("b", there)
    used = Fleet((rented("a", here), spare), (a_runner("r", "a"),))
    assert not is_surplus(spare, used, capacity, ends)
    assert is_surplus(spare, replace(used, runners=()), capacity, ends), "to zero"
    beside = rented("c", here)
    both = replace(used, hosts=(*used.hosts, beside))
    assert is_surplus(beside, both, capacity, ends), "it would be lost with the others"


def test_a_guest_that_must_leave_gets_a_host_of_its_kind() -> None:
    kvm, pvm = an_offer(usd=0.9), an_offer("m7i", usd=0.1, likeness=PVM)
    leaving = replace(rented("a", an_offer("gone")), state=HostState.DRAINING, deadline_at=NOW + MINUTE)
    assert leaving.host_class is not None
    emulated = replace(leaving, host_class=replace(leaving.host_class, acceleration=Acceleration.PVM))
    kinds = {Acceleration.KVM: leaving, Acceleration.PVM: emulated}
    for acceleration, offer in ((Acceleration.KVM, kvm), (Acceleration.PVM, pvm)):
        vendor = kinds[acceleration].host_class
        assert vendor is not None
        of_its_maker = [
            replace(one, likeness=replace(one.likeness, vendor=vendor.processor.vendor)) for one in (kvm, pvm)
        ]
        fleet = Fleet((kinds[acceleration],), (a_runner("r", "a"),))
        found = bought(of_its_maker, [], fleet=fleet, capacity=replace(CAPACITY, keeps_room=False))
        assert lots(found.orders) == {offer.lot: 1}
        assert found.orders[0].pool is None, "no budget holds it up"


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        (Sources(), "spot"),
        (Sources(market=Market.ON_DEMAND), "full"),
        (Sources(market=Market.SPOT_THEN_ON_DEMAND), "spot"),
        (Sources(zones=("b",), market=Market.SPOT_THEN_ON_DEMAND), "other"),
        (Sources(providers=("hetzner", "aws")), "steady"),
        (Sources(providers=("gcp",)), None),
    ],
)
def test_the_pool_says_where_from_and_on_which_terms(sources: Sources, expected: str | None) -> None:
    offers = [
        an_offer("spot", "a", 0.1),
        an_offer("full", "a", 0.05, spot=False),
        an_offer("other", "b", 0.2, spot=False),
        an_offer("steady", "fsn1", 0.3, cloud="hetzner", spot=False),
    ]
    found = bought(offers, waiting(1), Pool("ci", sources=sources), capacity=replace(CAPACITY, keeps_room=False))
    assert [one.offer.instance_type for one in found.orders if one.offer] == ([expected] if expected else [])
    assert bool(found.missing) is (expected is None)


def test_room_is_paid_for_by_whose_hosts_it_is_for_and_not_above_its_budget() -> None:
    offers = [an_offer(zone="a", usd=1.0), an_offer(zone="b", usd=1.0)]
    found = bought(offers, waiting(PER_HOST), left={"ci": 1.5})
    assert [one.pool for one in found.orders] == ["ci"]
    assert found.missing == (f"no offer elsewhere has room for what runs on {offers[0].lot} within its budget",)
    assert [one.pool for one in bought(offers, waiting(PER_HOST), left={"ci": 2.0}).orders] == ["ci", "ci"]
    used = Fleet((rented("a", offers[0]),), (a_runner("r", "a"),))
    assert bought(offers, [], Pool("other"), fleet=used).orders == (), "its pool may not buy"


def test_a_budget_holds_without_offers_too() -> None:
    found = bought([], waiting(9), capacity=replace(CAPACITY, price=1.0), left={"ci": 2.5})
    assert len(found.orders) == 2
    assert found.missing == ("another host costs pool ci more than its budget has left",)


def test_without_offers_hosts_are_bought_as_ever() -> None:
    found = bought([], waiting(3))
    assert [(one.pool, one.offer, one.sources) for one in found.orders] == [("ci", None, Sources())] * 2
    assert found.missing == ()


# ---------------------------------------------------------------- whatever is offered


ZONES = (("aws", "a"), ("aws", "b"), ("hetzner", "fsn1"))
offers_ = st.lists(
    st.builds(
        lambda place, kind, cents, like, spot, risk: an_offer(
            f"{kind}.{like}", place[1], cents / 100, cloud=place[0], spot=spot, likeness=KINDS[like], risk=risk
        ),
        st.sampled_from(ZONES),
        st.sampled_from(["m8i", "c8i", "r8i"]),
        st.integers(1, 60),
        st.sampled_from(sorted(KINDS)),
        st.booleans(),
        st.floats(0, 0.5),
    ),
    max_size=14,
    unique_by=lambda one: (one.lot, one.is_spot),
)
demand = st.lists(
    st.tuples(st.sampled_from(["ci", "free"]), st.sampled_from([FOR_KVM, FOR_PVM])), max_size=24
)  # fmt: skip


def jobs_of(asked: Sequence[tuple[str, PackageDigest]]) -> list[Job]:
    return [waiting(1, pool, package, number)[0] for number, (pool, package) in enumerate(asked)]


@given(offers_, demand, st.integers(0, 300), st.integers(0, 3), st.integers(0, 20))
def test_no_pool_ever_buys_above_what_its_budget_has_left(
    offers: list[Offer], asked: list[tuple[str, PackageDigest]], cents: int, ready: int, most: int
) -> None:
    pools = (Pool("ci", min_ready=ready), Pool("free"))
    capacity = replace(CAPACITY, hosts_max=most)
    found = bought(offers, jobs_of(asked), *pools, capacity=capacity, left={"ci": cents / 100}).orders
    assert sum(one.price or 0.0 for one in found if one.pool == "ci") <= cents / 100 + 1e-9
    assert len(found) <= most


@given(offers_, demand, st.integers(0, 300), st.integers(1, 4), st.integers(1, 20))
@example([an_offer()], [("ci", FOR_KVM)], 300, 1, 20)
def test_what_is_kept_ready_only_comes_after_what_jobs_wait_for(
    offers: list[Offer], asked: list[tuple[str, PackageDigest]], cents: int, ready: int, most: int
) -> None:
    """Else a host that nobody waits for would take the place, or the budget, of one that somebody does."""
    capacity, left = replace(CAPACITY, keeps_room=False, hosts_max=most), {"ci": cents / 100}
    plain = bought(offers, jobs_of(asked), Pool("ci"), Pool("free"), capacity=capacity, left=left).orders
    pools, more = (Pool("ci", min_ready=ready), Pool("free", min_ready=1)), replace(capacity, ready_hosts=ready)
    found = bought(offers, jobs_of(asked), *pools, capacity=more, left=left).orders
    assert found[: len(plain)] == plain
    assert {one.because for one in found[len(plain) :]} <= {"hosts are kept ready"}


@given(offers_, demand)
def test_no_host_is_ever_of_a_wrong_architecture_or_class(
    offers: list[Offer], asked: list[tuple[str, PackageDigest]]
) -> None:
    found = bought(offers, jobs_of(asked), Pool("ci"), Pool("free")).orders
    kinds = {one.offer.likeness for one in found if one.offer is not None}
    wanted = {KVM if package == FOR_KVM else PVM for _, package in asked}
    assert len(found) == sum(lots(found).values()) or not offers, "without offers the cloud chooses"
    assert kinds <= wanted, "and never arm64"


@given(offers_, demand)
@settings(max_examples=200)
def test_whichever_lot_is_lost_its_guests_have_room_elsewhere_if_offers_allow_it(
    offers: list[Offer], asked: list[tuple[str, PackageDigest]]
) -> None:
    """One small guest takes one of a host's places, so places are counted here, and not packed."""
    found = bought(offers, jobs_of(asked), Pool("ci"), Pool("free")).orders
    for kind, package in ((KVM, FOR_KVM), (PVM, FOR_PVM)):
        there = [one.offer for one in found if one.offer is not None and one.offer.likeness == kind]
        guests = sum(one == package for _, one in asked)
        able = {one.lot for one in offers if one.likeness == kind}
        safe = any(one.likeness == kind and not one.is_spot for one in offers if _is_buyable(one, offers))
        if not guests or not there or not (len({one.lot for one in offers if _of(one, kind, offers)}) > 1 or safe):
            continue
        for lot in able:
            lost = sum(one.is_spot and one.lot == lot for one in there)
            assert (len(there) - lost) * PER_HOST >= guests, f"{kind}: {lot}"


def _is_buyable(offer: Offer, offers: Sequence[Offer]) -> bool:
    """These pools want spot; a cloud that has none sells what it has."""
    return offer.is_spot or not any(one.is_spot and one.cloud == offer.cloud for one in offers)


def _of(offer: Offer, kind: Likeness, offers: Sequence[Offer]) -> bool:
    return offer.likeness == kind and _is_buyable(offer, offers)


@given(offers_, demand, st.tuples(st.sampled_from(["ci", "free"]), st.sampled_from([FOR_KVM, FOR_PVM])))
@settings(max_examples=200)
def test_one_job_more_never_leads_to_fewer_hosts(
    offers: list[Offer], asked: list[tuple[str, PackageDigest]], more: tuple[str, PackageDigest]
) -> None:
    pools = (Pool("ci", min_ready=1), Pool("free"))
    fewer = bought(offers, jobs_of(asked), *pools).orders
    assert len(bought(offers, jobs_of([*asked, more]), *pools).orders) >= len(fewer)


def test_what_is_not_built_is_not_bought_for_who_asks_for_nothing_special_either() -> None:
    arm = an_offer(likeness=ARM, usd=0.01)
    assert Shelf([arm], SPEC, keeps_room=False).choose(ANYWHERE, ANY) is None
    dearer = an_offer(usd=0.1)
    assert Shelf([arm, dearer], SPEC, keeps_room=False).choose(ANYWHERE, ANY) == dearer


@given(offers_, demand)
def test_what_was_bought_is_enough_so_nothing_is_bought_again(
    offers: list[Offer], asked: list[tuple[str, PackageDigest]]
) -> None:
    """Two looks in a row must not buy twice: hosts that were asked for are there at the second."""
    jobs, policy = jobs_of(asked), Policy((Pool("ci", min_ready=1), Pool("free")), PACKAGES)
    capacity = replace(CAPACITY, offers=tuple(offers))
    first = orders(NOTHING, jobs, capacity, policy, NOW)
    hosts = tuple(_asked(number, one) for number, one in enumerate(first))
    assert list(orders(Fleet(hosts, ()), jobs, capacity, policy, NOW)) == []


def _asked(number: int, order: Order) -> Host:
    host = replace(a_host(state=HostState.REQUESTED), id=HostId(f"h{number:03}"), host_class=None)
    cloud = order.offer.cloud if order.offer is not None else "aws"
    return replace(host, cloud=cloud, sources=order.sources, pool=order.pool, price=order.price)


@pytest.mark.parametrize(("first", "second"), list(product(["a", "b"], repeat=2)))
def test_the_same_rows_in_another_order_of_offers_lead_to_the_same_plan(first: str, second: str) -> None:
    one = [an_offer(zone=first), an_offer("c8i", zone=second)]
    assert bought(one, waiting(4)).orders == bought(one[::-1], waiting(4)).orders
