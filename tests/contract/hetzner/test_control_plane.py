"""A control plane's machine at the simulated Hetzner: made once, found again, or nothing is left of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sized
from contextlib import closing, contextmanager
from dataclasses import replace

import pytest

from tests.contract.hetzner.sides import TOKEN, Hetzner, hetzner, known, plant
from workers.domain.errors import NoCapacity, Refused, SpotError, Unreachable
from workers.providers.hetzner.account import Account
from workers.providers.hetzner.control_plane import ControlPlane, Made, Order
from workers.providers.hetzner.requests import Rental
from workers.rehearsal.hetzner.faults import FaultKind

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIexample operator"
ORDER = Order(
    name="runners",
    location="nbg1",
    public_key=KEY,
    admin_networks=("203.0.113.7/32",),
    volume_gb=20,
    user_data=lambda device: f"#cloud-config\n# {device}\n",
)
# Every request that makes something, and what has been made by then.
MAKING = ("/ssh_keys", "/firewalls", "/volumes", "/servers")
EVERYTHING = {"servers": 1, "volumes": 1, "firewalls": 1, "keys": 1}
NOTHING = dict.fromkeys(EVERYTHING, 0)


@pytest.fixture
def place() -> Iterator[Hetzner]:
    with hetzner() as found:
        yield found


@contextmanager
def making(place: Hetzner) -> Iterator[ControlPlane]:
    rental = Rental(deployment="runners", overlay_port=51820)
    with closing(Account.open(rental, TOKEN, place.clock, f"{place.url}/v1")) as account:
        yield ControlPlane(account, place.clock, place.pass_time)


def made(place: Hetzner, order: Order = ORDER) -> Made:
    with making(place) as control:
        return control.make(order)


def there(place: Hetzner) -> Mapping[str, int]:
    project = place.simulation.project
    with project.lock:
        project.settle()
        found: tuple[Sized, ...] = (project.servers, project.volumes, project.firewalls, project.given_keys)
        return {name: len(rows) for name, rows in zip(EVERYTHING, found, strict=True)}


def test_a_machine_is_made_with_its_firewall_its_volume_and_its_key(place: Hetzner) -> None:
    answer = made(place)
    assert there(place) == EVERYTHING
    server = known(place.client().servers.get_by_name("runners"))
    assert (answer.address, answer.was_there) == (known(known(server.public_net).ipv4).ip, False)
    assert answer.server_type == "cpx11", "the cheapest that is large enough"
    assert server.status == "running"
    volume = known(place.client().volumes.get_by_name("runners-home"))
    assert [one.id for one in server.volumes or ()] == [volume.id]
    (row,) = place.simulation.project.servers.values()
    assert row.user_data == f"#cloud-config\n# {volume.linux_device}\n"
    firewall = known(place.client().firewalls.get_by_name("runners-control"))
    assert row.firewalls == (firewall.id,)
    opened = {(one.protocol, one.port): tuple(one.source_ips) for one in firewall.rules or ()}
    assert opened.pop(("tcp", "22")) == ("203.0.113.7/32",)
    assert set(opened) == {("tcp", "443"), ("tcp", "80"), ("tcp", "8443"), ("udp", "51820")}


def test_asking_again_makes_nothing_and_sets_the_firewall_right(place: Hetzner) -> None:
    first = made(place)
    (row,) = place.simulation.project.firewalls.values()
    row.rules = []
    assert made(place) == replace(first, was_there=True)
    assert there(place) == EVERYTHING
    assert len(row.rules) == 5


@pytest.mark.parametrize("kind", [FaultKind.ERROR, FaultKind.DOWN, FaultKind.LOST])
@pytest.mark.parametrize("path", MAKING)
def test_whatever_fails_nothing_is_left(place: Hetzner, path: str, kind: FaultKind) -> None:
    plant(place, kind, "POST", path, code="service_error")
    with pytest.raises(SpotError):
        made(place)
    assert there(place) == NOTHING
    assert made(place).was_there is False, "and the next one is made"
    assert there(place) == EVERYTHING


def test_what_was_there_before_stays_when_the_rest_fails(place: Hetzner) -> None:
    made(place)
    place.client().servers.get_by_name("runners").delete()  # type: ignore[union-attr] # it was made a moment ago
    place.pass_time(5)
    plant(place, FaultKind.ERROR, "POST", "/servers", code="service_error")
    with pytest.raises(SpotError):
        made(place)
    assert there(place) == {**EVERYTHING, "servers": 0}, "the home of a machine that is no more"
    made(place)
    assert there(place) == EVERYTHING


def test_a_machine_that_never_runs_is_taken_away(place: Hetzner) -> None:
    place.simulation.project.spans = replace(
        place.simulation.project.spans, start=place.simulation.project.spans.start * 1000
    )
    with pytest.raises(Unreachable, match="not seen within 0:05:00 that the server runners runs"):
        made(place)
    assert there(place) == NOTHING


def test_a_location_without_stock_is_told_before_anything_is_made(place: Hetzner) -> None:
    place.simulation.project.stock.sold_out.add(("nbg1", "*"))
    with pytest.raises(NoCapacity, match="name another location"):
        made(place)
    assert there(place) == NOTHING


def test_what_is_anothers_is_let_alone(place: Hetzner) -> None:
    place.created("runners")
    with pytest.raises(Refused, match="a server of that name which no control plane has made"):
        made(place)
    assert there(place) == {**NOTHING, "servers": 1}


@pytest.mark.parametrize("is_same", [True, False])
def test_a_key_that_the_project_has_is_used_and_one_of_the_same_name_is_not(place: Hetzner, *, is_same: bool) -> None:
    if is_same:
        place.client().ssh_keys.create("of-somebody", KEY)
        made(place)
        assert there(place) == EVERYTHING
    else:
        place.client().ssh_keys.create("runners", KEY.replace("example", "another"))
        with pytest.raises(Refused, match="another SSH key of the name runners"):
            made(place)
        assert there(place) == {**NOTHING, "keys": 1}


def test_a_volume_elsewhere_is_told(place: Hetzner) -> None:
    made(place)
    place.client().servers.get_by_name("runners").delete()  # type: ignore[union-attr] # it was made a moment ago
    place.pass_time(5)
    with pytest.raises(Refused, match="the volume runners-home is in nbg1; make the control plane there"):
        made(place, replace(ORDER, location="fsn1"))
