"""The simulator is what Hetzner's own client takes for Hetzner: its requests and its classes are the contract."""

from __future__ import annotations

from collections.abc import Callable, Collection
from http import HTTPStatus
from typing import Any

import httpx
import pytest
from hcloud import APIException
from hcloud.actions import Action
from hcloud.core import BaseDomain
from hcloud.firewalls import Firewall, FirewallRule
from hcloud.images import Image
from hcloud.locations import Location
from hcloud.placement_groups import PlacementGroup
from hcloud.server_types import ServerType, ServerTypeLocation
from hcloud.servers import BoundServer, Server, ServerCreatePublicNetwork

from tests.contract.hetzner.sides import READONLY, TOKEN, Hetzner, hetzner, known
from workers.rehearsal.hetzner.faults import Fault, FaultKind
from workers.rehearsal.hetzner.records import STATUS_OF

RULE = FirewallRule("in", "udp", ["0.0.0.0/0", "::/0"], port="51820")
TYPE, IMAGE = ServerType(name="cx42"), Image(name="debian-12")


def code_of(call: Callable[[], object]) -> str | int:
    with pytest.raises(APIException) as caught:
        call()
    return caught.value.code


def body_of(place: Hetzner, path: str) -> dict[str, Any]:
    answer = httpx.get(f"{place.url}/v1{path}", headers={"Authorization": f"Bearer {TOKEN}"}, trust_env=False)
    answer.raise_for_status()
    body: dict[str, Any] = answer.json()
    return body


def fields_of(kind: type[BaseDomain]) -> set[str]:
    return set(kind.__api_properties__)


# ---------------------------------------------------------------- the form of what it says


@pytest.mark.parametrize(
    ("path", "kind", "besides"),
    [
        ("/servers", Server, set()),
        ("/images", Image, set()),
        ("/firewalls", Firewall, set()),
        ("/locations", Location, set()),
        # Three that the client still reads and warns of.
        ("/server_types", ServerType, {"deprecated", "deprecation", "included_traffic"}),
    ],
)
def test_it_shows_every_field_that_the_client_knows_and_no_other(
    place: Hetzner, path: str, kind: type[BaseDomain], besides: Collection[str]
) -> None:
    place.client().firewalls.create("ours", [RULE])
    place.created()
    (rows,) = (value for name, value in body_of(place, path).items() if name != "meta")
    assert rows
    assert all(set(row) == fields_of(kind) - set(besides) for row in rows)


def test_an_action_and_a_types_location_have_the_clients_fields_too(place: Hetzner) -> None:
    server = place.created()
    (first, second) = body_of(place, f"/servers/{server.id}/actions")["actions"]
    assert set(first) == set(second) == fields_of(Action)
    places = body_of(place, "/server_types")["server_types"][0]["locations"]
    assert all({"deprecation", "available", "recommended"} == set(one) - {"id", "name"} for one in places)
    assert fields_of(ServerTypeLocation) == {"location", "deprecation", "available", "recommended"}


def test_a_field_or_a_parameter_that_it_does_not_rehearse_is_refused(place: Hetzner) -> None:
    client = place.client()
    group = PlacementGroup(1)
    assert code_of(lambda: client.servers.create("a", TYPE, IMAGE, placement_group=group)) == "invalid_input"
    assert code_of(lambda: client.request("GET", "/servers", params={"colour": "red"})) == "invalid_input"
    assert code_of(lambda: client.request("GET", "/load_balancers")) == "not_found"


# ---------------------------------------------------------------- servers


def test_a_server_is_made_started_and_deleted_and_each_takes_its_time(place: Hetzner) -> None:
    client = place.client()
    answer = client.servers.create("one", TYPE, IMAGE, user_data="{}", location=Location(name="hel1"))
    server = answer.server
    assert (server.status, answer.action.status, [one.command for one in answer.next_actions]) == (
        "initializing",
        "running",
        ["start_server"],
    )
    assert status(place, server, after=3) == "starting"
    assert status(place, server, after=5) == "running"
    answer.action.wait_until_finished(max_retries=1)
    assert (known(server.location).name, known(known(server.public_net).ipv4).ip) == ("hel1", "198.18.0.1")
    server.delete()
    assert status(place, server) == "deleting"
    place.pass_time(1)
    assert code_of(lambda: client.servers.get_by_id(known(server.id))) == "not_found"


def status(place: Hetzner, server: BoundServer, after: float = 0) -> str | None:
    place.pass_time(after)
    server.reload()
    return server.status


def test_a_name_is_used_once_in_a_project(place: Hetzner) -> None:
    place.created("one")
    assert code_of(lambda: place.created("one")) == "uniqueness_error"
    assert code_of(lambda: place.created("-not-a-host-name")) == "invalid_input"


def test_a_server_that_is_off_is_billed_until_it_is_deleted(place: Hetzner) -> None:
    server = place.created()
    place.pass_time(10)
    server.power_off()
    assert status(place, server) == "off"
    place.pass_time(3 * 3600)
    ((_, hours, cost),) = place.simulation.project.bills()
    assert (hours, round(cost, 4)) == (4, round(4 * 0.0263, 4))
    server.delete()
    place.pass_time(5 * 3600)
    assert [hours for _, hours, _ in place.simulation.project.bills()] == [4]


def test_an_address_may_be_done_without(place: Hetzner) -> None:
    net = ServerCreatePublicNetwork(enable_ipv4=False)
    server = place.client().servers.create("one", TYPE, IMAGE, public_net=net).server
    assert known(server.public_net).ipv4 is None
    assert known(server.public_net).ipv6 is not None


def test_what_cannot_be_had_is_refused_in_its_own_words(place: Hetzner) -> None:
    client, stock = place.client(), place.simulation.project.stock

    def create(kind: str = "cx42", image: Image = IMAGE, location: str = "fsn1", name: str = "one") -> object:
        return client.servers.create(name, ServerType(name=kind), image, location=Location(name=location))

    assert code_of(lambda: create("cx99")) == "invalid_input"
    assert code_of(lambda: create(location="moon1")) == "invalid_input"
    assert code_of(lambda: create(image=Image(id=7))) == "invalid_input"
    assert code_of(lambda: create("cax31")) == "invalid_input", "an image for another architecture"
    assert code_of(lambda: create(location="ash")) == "invalid_input", "this type is not sold there"
    assert code_of(lambda: create("cx41")) == "invalid_input", "this type is deprecated"
    stock.sold_out = {("fsn1", "cx42")}
    assert code_of(create) == "resource_unavailable"
    stock.maintained = {"fsn1"}
    assert code_of(create) == "maintenance"
    stock.servers_max = 0
    assert code_of(lambda: create(location="hel1")) == "resource_limit_exceeded"


def test_a_type_says_where_it_can_be_had_and_for_how_much(place: Hetzner) -> None:
    place.simulation.project.stock.sold_out = {("nbg1", "*")}
    found = place.client().server_types.get_by_name("cx42")
    assert found is not None
    assert {one.location.name: one.available for one in known(found.locations)} == {
        "fsn1": True,
        "nbg1": False,
        "hel1": True,
    }
    assert [one["price_hourly"]["net"] for one in known(found.prices)] == ["0.0263000000"] * 3


def test_a_snapshot_locks_its_server_and_is_there_after_a_while(place: Hetzner) -> None:
    client, server = place.client(), place.created()
    place.pass_time(10)
    answer = server.create_image("ours", labels={"purpose": "host"})
    assert (answer.image.status, code_of(server.delete)) == ("creating", "locked")
    place.pass_time(30)
    (image,) = client.images.get_all(label_selector="purpose=host", type=["snapshot"])
    assert (image.status, known(image.created_from).name) == ("available", "one")
    server.delete()
    assert client.images.delete(image)
    assert [one.name for one in client.images.get_all()] == ["debian-12"]


# ---------------------------------------------------------------- lists, labels, firewalls


def test_lists_come_in_pages_and_the_client_puts_them_together(place: Hetzner) -> None:
    place.simulation.project.stock.servers_max = 200
    names = {f"server-{number}" for number in range(101)}
    for name in names:
        place.created(name)
    page = place.client().servers.get_list(page=3, per_page=50)
    pages = known(page.meta.pagination)
    assert (len(page.servers), pages.total_entries, pages.next_page) == (1, 101, None)
    assert {one.name for one in place.client().servers.get_all()} == names


@pytest.mark.parametrize(
    ("selector", "found"),
    [
        ("env=production", {"a"}),
        ("env==production", {"a"}),
        ("env!=production", {"b", "c"}),
        ("example.com/kind", {"b"}),
        ("!env", {"c"}),
        ("env in (production, testing)", {"a", "b"}),
        ("env notin (production,testing)", {"c"}),
        ("env,env!=testing", {"a"}),
        ("", {"a", "b", "c"}),
    ],
)
def test_label_selectors_choose_as_documented(place: Hetzner, selector: str, found: set[str]) -> None:
    place.created("a", {"env": "production"})
    place.created("b", {"env": "testing", "example.com/kind": ""})
    place.created("c")
    assert {one.name for one in place.client().servers.get_all(label_selector=selector)} == found


@pytest.mark.parametrize("labels", [{"a b": ""}, {"a": "b c"}, {"a": "x" * 64}, {"hetzner.cloud/a": ""}, {"-a": ""}])
def test_labels_that_hetzner_would_not_take_are_refused(place: Hetzner, labels: dict[str, str]) -> None:
    assert code_of(lambda: place.created(labels=labels)) == "invalid_input"


def test_a_firewall_is_kept_as_long_as_a_server_uses_it(place: Hetzner) -> None:
    client = place.client()
    firewall = client.firewalls.create("ours", [RULE]).firewall
    assert code_of(lambda: client.firewalls.create("ours", [])) == "uniqueness_error"
    server = client.servers.create("one", TYPE, IMAGE, firewalls=[firewall]).server
    assert code_of(firewall.delete) == "resource_in_use"
    firewall.set_rules([FirewallRule("in", "icmp", ["0.0.0.0/0"])])
    found = client.firewalls.get_by_name("ours")
    assert found is not None
    assert [rule.protocol for rule in known(found.rules)] == ["icmp"]
    server.delete()
    place.pass_time(2)
    client.firewalls.delete(firewall)
    assert client.firewalls.get_all() == []


@pytest.mark.parametrize(
    "rule",
    [
        FirewallRule("in", "udp", ["0.0.0.0/0"]),
        FirewallRule("in", "icmp", ["0.0.0.0/0"], port="1"),
        FirewallRule("in", "tcp", ["10.0.0.1/8"], port="1"),
        FirewallRule("in", "tcp", port="1"),
        FirewallRule("sideways", "tcp", ["0.0.0.0/0"], port="1"),
    ],
)
def test_rules_that_make_no_sense_are_refused(place: Hetzner, rule: FirewallRule) -> None:
    assert code_of(lambda: place.client().firewalls.create("ours", [rule])) == "invalid_input"


# ---------------------------------------------------------------- limits and faults


def test_whoever_is_not_known_gets_nothing_and_some_may_only_read(place: Hetzner) -> None:
    assert code_of(place.client("wrong").servers.get_all) == "unauthorized"
    reader = place.client(READONLY)
    assert reader.servers.get_all() == []
    assert code_of(lambda: reader.servers.create("one", TYPE, IMAGE)) == "token_readonly"


def test_an_hours_requests_are_used_up_and_given_back_one_by_one() -> None:
    with hetzner(requests_per_hour=360) as place:
        for _ in range(360):
            place.simulation.rates.admit()
        assert code_of(place.client().servers.get_all) == "rate_limit_exceeded"
        place.pass_time(10)
        place.client().servers.get_all()
        assert code_of(place.client().servers.get_all) == "rate_limit_exceeded"
        answer = httpx.get(f"{place.url}/v1/servers", trust_env=False)
        assert (answer.status_code, answer.headers["RateLimit-Remaining"]) == (HTTPStatus.TOO_MANY_REQUESTS, "0")
        assert int(answer.headers["RateLimit-Reset"]) == int(place.clock.now().timestamp()) + 3600


def test_every_error_comes_on_order_and_once(place: Hetzner) -> None:
    for code in STATUS_OF:
        place.simulation.faults.plant(Fault(FaultKind.ERROR, "POST", "/servers", code=code))
        assert code_of(place.created) == code
    assert place.created().name == "one"


def test_an_answer_is_lost_after_the_deed_or_before_it(place: Hetzner) -> None:
    place.simulation.faults.plant(Fault(FaultKind.DOWN, "POST", "/servers"))
    place.simulation.faults.plant(Fault(FaultKind.LOST, "POST", "/servers"))
    assert code_of(place.created) == HTTPStatus.SERVICE_UNAVAILABLE
    assert place.client().servers.get_all() == []
    assert code_of(place.created) == HTTPStatus.BAD_GATEWAY
    assert [one.name for one in place.client().servers.get_all()] == ["one"]


def test_a_rehearsal_orders_all_of_this_over_its_own_routes(place: Hetzner) -> None:
    with httpx.Client(base_url=f"{place.url}/_simulator", trust_env=False) as http:
        order = {"kind": "error", "method": "POST", "path": "/servers", "code": "placement_error"}
        http.post("/faults", json=order).raise_for_status()
        assert code_of(place.created) == "placement_error"
        http.put("/stock", json={"sold_out": [["fsn1", "*"]], "servers_max": 1}).raise_for_status()
        assert known(place.created().location).name == "nbg1"
        assert code_of(lambda: place.created("two")) == "resource_limit_exceeded"
        http.post("/servers/one/off").raise_for_status()
        assert known(place.client().servers.get_by_name("one")).status == "off"
        told = http.get("/servers").json()
        assert [(one["name"], one["hours"], one["is_left"]) for one in told["servers"]] == [("one", 1, True)]
        http.put("/rate", json={"left": 0}).raise_for_status()
        assert code_of(place.created) == "rate_limit_exceeded"
        assert (
            http.post("/faults", json={**order, "code": "no_such_code"}).status_code == HTTPStatus.UNPROCESSABLE_ENTITY
        )
