"""Hosts of several clouds in one deployment: what one cannot do, the others go on to do."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta

import pytest

from tests.contract.store_rows import TERMS
from tests.fakes.clock import FakeClock
from tests.fakes.cloud import FakeCloud
from tests.fakes.hints import LossyHints
from tests.fakes.store import MemoryStore
from tests.fakes.trouble import Trouble
from tests.unit.planning.rows import SMALL, SPEC, a_job
from workers.domain.errors import Barred, NoCapacity, Refused, Throttled, TryLater, Unreachable
from workers.domain.events import Happening
from workers.domain.host import Host, HostState
from workers.domain.market import ANYWHERE, Sources, SpotPool
from workers.domain.names import HostId
from workers.domain.offer import Assortment, Offer
from workers.domain.pools import Policy, Pool
from workers.planning.capacity import CapacityPolicy
from workers.planning.paid_time import BY_THE_HOUR, BY_THE_SECOND
from workers.reconcilers.capacity import Buyer
from workers.reconcilers.clouds import OUTAGE, PATIENCE, Clouds, Outages
from workers.reconcilers.hosts import HostPolicy, Hosts

CHEAP = Offer("aws", "r", "a", "m8i", SPEC, 0.01, is_spot=True)
DEAR = Offer("hetzner", "fsn1", "fsn1", "cx42", SPEC, 0.05, is_spot=False)


class Rig:
    """A deployment at two clouds."""

    def __init__(self, *offers: Offer, sources: Sources = ANYWHERE) -> None:
        self.clock = FakeClock()
        self.aws_trouble, self.hetzner_trouble = Trouble(self.clock), Trouble(self.clock)
        self.aws = FakeCloud(self.clock, self.aws_trouble, "aws")
        self.hetzner = FakeCloud(self.clock, self.hetzner_trouble, "hetzner")
        self.store = MemoryStore(self.clock)
        self.outages = Outages(self.clock)
        self.clouds = Clouds([self.aws, self.hetzner], self.outages)
        hints = LossyHints(random.Random(0))
        billings = {"aws": BY_THE_SECOND, "hetzner": BY_THE_HOUR}
        capacity = CapacityPolicy("aws", SPEC, 0, 5, clouds=("aws", "hetzner"), billings=billings, keeps_room=False)
        policy = Policy((Pool("ci", sources=sources),), ())
        self.buyer = Buyer(
            self.store, hints, self.clock, capacity, lambda: policy, lambda: Assortment(offers), self.outages
        )
        self.hosts = Hosts(self.store, self.clouds, hints, self.clock, self.buyer, HostPolicy({}))

    def queue_a_job(self) -> None:
        self.store.jobs.add(replace(a_job(), terms=replace(TERMS, pool="ci", shape=SMALL)))

    def buy(self) -> Host:
        """Buy, and return the last host that was asked for."""
        before = {host.id for host in self.store.hosts.open()}
        self.buyer.buy()
        (host,) = (host for host in self.store.hosts.open() if host.id not in before)
        return host

    def row(self, host: Host) -> Host:
        row = self.store.hosts.get(host.id)
        assert row is not None
        return row

    def reasons(self) -> list[str]:
        events = (event for _, event in self.store.timeline() if event.happening is Happening.LAUNCH_REFUSED)
        return [str(event.detail["because"]) for event in events]


def test_a_host_is_asked_of_the_cloud_whose_offer_was_taken() -> None:
    rig = Rig(replace(CHEAP, usd_per_hour=1.0), DEAR)
    rig.queue_a_job()
    host = rig.buy()
    assert host.cloud == "hetzner"
    rig.hosts.advance(host.id)
    assert (list(rig.aws.machines), list(rig.hetzner.machines)) == ([], [host.id])
    assert rig.row(host).state is HostState.LAUNCHING


@pytest.mark.parametrize(
    ("providers", "cloud"), [((), "aws"), (("hetzner",), "hetzner"), (("hetzner", "aws"), "hetzner")]
)
def test_without_offers_the_pools_favourite_cloud_chooses(providers: tuple[str, ...], cloud: str) -> None:
    rig = Rig(sources=Sources(providers))
    rig.queue_a_job()
    assert rig.buy().cloud == cloud


def test_the_pools_order_of_clouds_goes_before_the_price() -> None:
    rig = Rig(CHEAP, DEAR, sources=Sources(("hetzner", "aws")))
    rig.queue_a_job()
    assert rig.buy().cloud == "hetzner"


@pytest.mark.parametrize("error", [Barred("credentials"), Throttled("slow down"), Unreachable("no answer")])
def test_after_an_outage_the_other_cloud_is_bought_from_until_it_may_be_over(error: Exception) -> None:
    rig = Rig(CHEAP, DEAR)
    rig.queue_a_job()
    first = rig.buy()
    rig.aws_trouble.lost_calls["cloud", "launch"] = error
    if isinstance(error, TryLater):
        with pytest.raises(type(error)):
            rig.hosts.advance(first.id)
        rig.clock.move(PATIENCE + timedelta(seconds=1))
        rig.aws_trouble.lost_calls["cloud", "launch"] = error
    rig.hosts.advance(first.id)
    assert rig.row(first).state in {HostState.TERMINATING, HostState.TERMINATED}
    assert rig.reasons() == [str(error)]
    rig.clock.move(timedelta(seconds=11))
    second = next((host for host in rig.store.hosts.open() if host.state is HostState.REQUESTED), None) or rig.buy()
    assert second.cloud == "hetzner"
    rig.hosts.advance(second.id)
    assert list(rig.hetzner.machines) == [second.id]
    rig.clock.move(OUTAGE)
    assert {one.cloud for one in rig.buyer.capacity.offers} == {"aws", "hetzner"}


def test_what_no_answer_said_to_have_been_made_is_ended_when_the_cloud_answers() -> None:
    rig = Rig(CHEAP, DEAR)
    rig.queue_a_job()
    host = rig.buy()
    rig.aws_trouble.lost_answers["cloud", "launch"] = Unreachable("the answer was lost")
    with pytest.raises(Unreachable):
        rig.hosts.advance(host.id)
    rig.aws_trouble.away.add("cloud")
    rig.clock.move(PATIENCE + timedelta(seconds=1))
    rig.hosts.advance(host.id)
    with pytest.raises(Unreachable):
        rig.hosts.advance(host.id)
    assert rig.row(host).state is HostState.TERMINATING
    assert [one.cloud for one in rig.store.hosts.open() if one.state is HostState.REQUESTED] == ["hetzner"]
    rig.aws_trouble.away.clear()
    rig.hosts.advance(host.id)
    rig.clock.move(timedelta(minutes=1))
    rig.aws.pass_time()
    rig.hosts.advance(host.id)
    assert (rig.aws.alive(), rig.row(host).state) == ([], HostState.TERMINATED)


def test_a_cloud_that_is_sold_out_gives_its_host_to_the_next_that_the_pool_allows() -> None:
    rig = Rig(CHEAP, DEAR)
    rig.queue_a_job()
    host = rig.buy()
    rig.aws.is_sold_out = True
    rig.hosts.advance(host.id)  # what was chosen, then whatever else there is, then the other cloud: all in one look
    row = rig.row(host)
    assert (row.cloud, row.state, list(rig.hetzner.machines)) == ("hetzner", HostState.LAUNCHING, [host.id])
    assert rig.reasons() == ["sold out", "sold out"]


def test_where_nobody_has_any_each_look_asks_each_cloud_once_more() -> None:
    rig = Rig(CHEAP, DEAR)
    rig.queue_a_job()
    host = rig.buy()
    rig.aws.is_sold_out = rig.hetzner.is_sold_out = True
    asked = []
    for _ in range(3):
        with pytest.raises(NoCapacity):
            rig.hosts.advance(host.id)
        asked.append(len(rig.reasons()))
    assert asked == [3, 5, 7], "the first look has the chosen offer beside"
    rig.hetzner.is_sold_out = False
    rig.hosts.advance(host.id)
    assert rig.row(host).cloud == "hetzner"


def test_a_pool_that_wants_one_cloud_only_waits_for_it() -> None:
    rig = Rig(CHEAP, DEAR, sources=Sources(("aws",)))
    rig.queue_a_job()
    host = rig.buy()
    rig.aws.is_sold_out = True
    for _ in range(3):
        with pytest.raises(NoCapacity):
            rig.hosts.advance(host.id)
    assert rig.reasons() == ["sold out"], "it is said once"
    assert (rig.row(host).cloud, list(rig.hetzner.machines)) == ("aws", [])


@pytest.mark.parametrize("error", [Barred("credentials"), Throttled("slow down"), Unreachable("no answer")])
def test_leaks_are_ended_at_each_cloud_whatever_the_others_say(error: Exception) -> None:
    rig = Rig()
    for cloud in (rig.aws, rig.hetzner):
        cloud.launch(HostId("spot-host-leaked"), SPEC, {})
    rig.aws_trouble.lost_calls["cloud", "owned"] = error
    rig.hosts.end_leaked()
    for cloud in (rig.aws, rig.hetzner):
        rig.clock.move(timedelta(minutes=1))
        cloud.pass_time()
    assert (len(rig.aws.alive()), rig.hetzner.alive()) == (1, [])


def test_an_instance_at_another_cloud_than_its_host_is_of_is_a_leak() -> None:
    rig = Rig(CHEAP, DEAR)
    rig.queue_a_job()
    host = rig.buy()
    rig.hosts.advance(host.id)
    rig.hetzner.launch(host.id, SPEC, {}, Sources(pick=SpotPool("cx42", "fsn1")))
    rig.hosts.end_leaked()
    rig.clock.move(timedelta(minutes=1))
    rig.hetzner.pass_time()
    assert (rig.aws.alive(), rig.hetzner.alive()) == ([host.id], [])


def test_a_host_of_a_cloud_that_is_not_set_any_more_is_said_to_be_one() -> None:
    rig = Rig()
    rig.store.hosts.add(Host(HostId("spot-host-x"), "local", HostState.REQUESTED, rig.clock.now(), SPEC))
    with pytest.raises(Refused, match="spot-host-x is a host of local, of which the settings say nothing any more"):
        rig.clouds.of(rig.store.hosts.open()[0])


def test_each_clouds_hosts_are_paid_for_as_it_counts() -> None:
    capacity = Rig(CHEAP, DEAR).buyer.capacity
    assert (capacity.billing_of("aws"), capacity.billing_of("hetzner")) == (BY_THE_SECOND, BY_THE_HOUR)
