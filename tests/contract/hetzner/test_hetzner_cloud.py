"""Hetzner's adapter over the simulator, beyond what every cloud does."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import httpx
import pytest

from tests.contract.clouds import SPEC, TOLD, A, B
from tests.contract.hetzner.sides import BIG, IMAGE_LABELS, RENTAL, Hetzner, bought, known, plant, rented_from
from workers.domain.errors import NoCapacity, Refused, Throttled, Unreachable
from workers.domain.market import Sources
from workers.domain.runner import Shape
from workers.domain.user_data import cloud_config
from workers.ports import Cloud, InstanceState
from workers.providers.hetzner.cloud import Hetzner as HetznerCloud
from workers.providers.hetzner.requests import Rental, firewall_name
from workers.rehearsal.hetzner.faults import Fault, FaultKind

FULL = timedelta(hours=1)


def seen(cloud: Cloud, state: InstanceState) -> bool:
    return known(cloud.describe(A)).state is state


# ---------------------------------------------------------------- what is bought


def test_a_host_is_the_cheapest_type_that_holds_it_in_the_location_that_is_liked_best(
    stocked: Hetzner, cloud: HetznerCloud
) -> None:
    instance = cloud.launch(A, BIG, TOLD)
    assert bought(stocked) == [("cx42", "nbg1")]
    machine = known(instance.machine)
    told = (machine.region, machine.zone, machine.instance_type, machine.lifecycle, machine.usd_per_hour)
    assert told == ("eu-central", "nbg1", "cx42", "on-demand", None)


@pytest.mark.parametrize(
    ("rental", "zones", "found"),
    [
        (replace(RENTAL, locations=()), (), ("cx42", "fsn1")),
        (replace(RENTAL, locations=("hel1", "fsn1")), (), ("cx42", "hel1")),
        (RENTAL, ("ash",), ("cpx41", "ash")),
        (RENTAL, ("eu-central-1b", "hel1"), ("cx42", "hel1")),
        (replace(RENTAL, server_types=("ccx33", "cx42")), (), ("ccx33", "nbg1")),
        (replace(RENTAL, server_types=("cx42",), locations=("ash", "hel1")), (), ("cx42", "hel1")),
    ],
)
def test_pools_and_settings_say_what_is_liked(
    stocked: Hetzner, rental: Rental, zones: tuple[str, ...], found: tuple[str, str]
) -> None:
    with rented_from(stocked, rental) as cloud:
        cloud.launch(A, BIG, TOLD, Sources(zones=zones))
    assert bought(stocked) == [found]


def test_a_server_says_whose_it_is_and_knows_what_its_daemon_needs(stocked: Hetzner, cloud: HetznerCloud) -> None:
    image = stocked.image(IMAGE_LABELS)
    cloud.launch(A, SPEC, TOLD)
    (server,) = stocked.simulation.project.servers.values()
    assert server.name == A
    assert server.labels == {"spot-runner/deployment": "ab12cd", "spot-runner/host": A}
    assert server.user_data == cloud_config(TOLD)
    assert server.image.id == image.id, "the latest of those with the label"


def test_prices_are_told_to_jobs_if_they_are_dollars(stocked: Hetzner) -> None:
    with rented_from(stocked, replace(RENTAL, currency="USD")) as cloud:
        assert known(cloud.launch(A, BIG, TOLD).machine).usd_per_hour == 0.0263


def test_what_is_sold_out_in_one_place_is_had_in_the_next(stocked: Hetzner, cloud: HetznerCloud) -> None:
    stocked.simulation.project.stock.sold_out = {("nbg1", "cx42")}
    cloud.launch(A, BIG, TOLD)
    stocked.simulation.project.stock.sold_out = {("nbg1", "*")}
    stocked.pass_time(301)
    cloud.launch(B, BIG, TOLD)
    assert bought(stocked) == [("cpx41", "nbg1"), ("cx42", "hel1")]


@pytest.mark.parametrize("code", ["resource_unavailable", "placement_error", "maintenance", "unavailable"])
def test_a_place_that_turns_out_to_be_full_sends_us_to_the_next(
    stocked: Hetzner, cloud: HetznerCloud, code: str
) -> None:
    plant(stocked, FaultKind.ERROR, code=code)
    cloud.launch(A, BIG, TOLD)
    assert bought(stocked) == [("cpx41", "nbg1")]


def test_a_type_that_is_priced_and_not_sold_in_a_location_is_no_capacity_there(
    stocked: Hetzner, cloud: HetznerCloud
) -> None:
    fault = Fault(FaultKind.ERROR, "POST", "/servers", code="invalid_input")
    stocked.simulation.faults.plant(replace(fault, message="unsupported location for server type"))
    cloud.launch(A, BIG, TOLD)
    assert bought(stocked) == [("cpx41", "nbg1")]


def test_nothing_to_be_had_is_one_sentence_with_every_place_that_was_tried(
    stocked: Hetzner, cloud: HetznerCloud
) -> None:
    stock, before = stocked.simulation.project.stock, stocked.simulation.rates.admitted
    stock.sold_out, stock.hides_sold_out = {("nbg1", "*"), ("hel1", "*")}, True
    with pytest.raises(
        NoCapacity, match=r"cx42 in nbg1: error during placement \(resource_unavailable\);.*; allow more"
    ):
        cloud.launch(A, BIG, TOLD)
    assert stocked.simulation.rates.admitted - before == 9, "four attempts, not all that there are"
    stock.hides_sold_out = False
    with pytest.raises(NoCapacity, match=r"cx42 in nbg1.*not available now"):
        cloud.launch(A, BIG, TOLD)
    stock.sold_out = set()
    stocked.pass_time(301)
    cloud.launch(A, BIG, TOLD)


# ---------------------------------------------------------------- once, whatever happens


@pytest.mark.parametrize("kind", [FaultKind.DOWN, FaultKind.LOST])
def test_a_launch_whose_answer_is_lost_gives_one_server(stocked: Hetzner, cloud: HetznerCloud, kind: FaultKind) -> None:
    plant(stocked, kind)
    with pytest.raises(Unreachable, match=r"Hetzner: create server \(cpx11 in nbg1\)"):
        cloud.launch(A, Shape(1, 512, 4096), TOLD)
    instance = cloud.launch(A, Shape(1, 512, 4096), TOLD)
    assert instance == cloud.describe(A)
    assert len(bought(stocked)) == 1


def test_of_two_who_launch_at_once_both_get_the_same_server(stocked: Hetzner, cloud: HetznerCloud) -> None:
    """The other one has just been made when we ask: Hetzner refuses the name, and says nothing more."""
    with rented_from(stocked) as other:
        first = other.launch(A, SPEC, TOLD)
        assert known(cloud.launch(A, SPEC, TOLD)).id == first.id
        plant(stocked, FaultKind.ERROR, code="uniqueness_error")
        with pytest.raises(Throttled, match="spot-host-b is taken by a server that is just going"):
            cloud.launch(B, SPEC, TOLD)
    assert len(bought(stocked)) == 1


def test_what_is_rented_is_found_when_nothing_else_is_to_be_had(stocked: Hetzner, cloud: HetznerCloud) -> None:
    first = cloud.launch(A, SPEC, TOLD)
    stock = stocked.simulation.project.stock
    stock.servers_max, stock.sold_out = 1, {("nbg1", "*"), ("hel1", "*")}
    assert cloud.launch(A, SPEC, TOLD).id == first.id


def test_a_server_of_somebody_else_is_let_alone(stocked: Hetzner, cloud: HetznerCloud) -> None:
    stocked.created(A)
    stocked.created(B, {"spot-runner/deployment": "another", "spot-runner/host": B})
    assert (cloud.describe(A), list(cloud.owned())) == (None, [])
    with pytest.raises(Refused, match="does not carry our label"):
        cloud.launch(A, SPEC, TOLD)
    cloud.terminate(A)
    cloud.terminate(B)
    stocked.pass_time(2)
    assert len(stocked.client().servers.get_all()) == 2


# ---------------------------------------------------------------- states and ends


def test_a_server_is_pending_running_stopped_and_gone(stocked: Hetzner, cloud: HetznerCloud) -> None:
    assert cloud.launch(A, SPEC, TOLD).state is InstanceState.PENDING
    stocked.pass_time(4)
    assert seen(cloud, InstanceState.PENDING)
    stocked.pass_time(4)
    assert seen(cloud, InstanceState.RUNNING)
    (server,) = stocked.simulation.project.servers.values()
    stocked.simulation.project.switch_off(server)
    assert seen(cloud, InstanceState.STOPPED)
    cloud.terminate(A)
    assert seen(cloud, InstanceState.RUNNING), "as long as it is there, nobody says that nothing runs there"
    cloud.terminate(A)
    stocked.pass_time(2)
    assert cloud.describe(A) is None


def test_servers_that_are_off_are_listed_as_leaks_since_they_cost(stocked: Hetzner, cloud: HetznerCloud) -> None:
    stocked.simulation.project.stock.servers_max = 100
    for number in range(60):
        stocked.created(
            f"spot-host-{number}", {"spot-runner/deployment": "ab12cd", "spot-runner/host": f"spot-host-{number}"}
        )
    for server in list(stocked.simulation.project.servers.values())[:30]:
        stocked.simulation.project.switch_off(server)
    found = list(cloud.owned())
    assert len({one.host_id for one in found}) == 60, "over more pages than one"
    assert sum(one.state is InstanceState.STOPPED for one in found) == 30


def test_a_server_that_is_locked_is_ended_later(stocked: Hetzner, cloud: HetznerCloud) -> None:
    cloud.launch(A, SPEC, TOLD)
    plant(stocked, FaultKind.ERROR, "DELETE", code="locked")
    with pytest.raises(Throttled, match=r"Hetzner: delete server: .*\(locked\); the next look asks again"):
        cloud.terminate(A)
    cloud.terminate(A)
    stocked.pass_time(2)
    assert cloud.describe(A) is None


def test_an_end_whose_answer_is_lost_is_an_end(stocked: Hetzner, cloud: HetznerCloud) -> None:
    cloud.launch(A, SPEC, TOLD)
    plant(stocked, FaultKind.LOST, "DELETE")
    cloud.terminate(A)
    cloud.launch(B, SPEC, TOLD)
    plant(stocked, FaultKind.ERROR, "DELETE", code="not_found")
    cloud.terminate(B)


# ---------------------------------------------------------------- the firewall


def test_hosts_let_in_nothing_but_the_overlay(stocked: Hetzner, cloud: HetznerCloud) -> None:
    cloud.launch(A, SPEC, TOLD)
    cloud.launch(B, SPEC, TOLD)
    (firewall,) = stocked.simulation.project.firewalls.values()
    assert [(one["direction"], one["protocol"], one["port"]) for one in firewall.rules] == [
        ("in", "udp", "51820"),
        ("in", "icmp", None),
    ]
    assert {one.firewalls for one in stocked.simulation.project.servers.values()} == {(firewall.id,)}


def test_a_firewall_that_somebody_has_changed_is_set_right_and_one_that_is_gone_is_made_again(
    stocked: Hetzner, cloud: HetznerCloud
) -> None:
    project = stocked.simulation.project
    project.create_firewall(firewall_name(RENTAL), [], {})
    cloud.launch(A, SPEC, TOLD)
    (firewall,) = project.firewalls.values()
    assert len(firewall.rules) == 2
    project.firewalls.clear()
    with pytest.raises(Refused, match="firewalls"):
        cloud.launch(B, SPEC, TOLD)
    cloud.launch(B, SPEC, TOLD)
    assert len(project.firewalls) == 1


def test_two_who_make_the_firewall_at_once_use_the_same(stocked: Hetzner, cloud: HetznerCloud) -> None:
    plant(stocked, FaultKind.LOST, path="/firewalls")
    with pytest.raises(Unreachable):
        cloud.launch(A, SPEC, TOLD)
    cloud.launch(A, SPEC, TOLD)
    assert len(stocked.simulation.project.firewalls) == 1


def test_what_it_costs_is_told_by_the_simulator(stocked: Hetzner, cloud: HetznerCloud) -> None:
    cloud.launch(A, BIG, TOLD)
    stocked.pass_time(FULL.total_seconds() + 1)
    cloud.terminate(A)
    (told,) = httpx.get(f"{stocked.url}/_simulator/servers", trust_env=False).json()["servers"]
    assert (told["hours"], told["is_left"], told["cost"]) == (2, False, pytest.approx(2 * 0.0263))
