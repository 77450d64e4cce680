"""What the host listener tells hosts of the overlay, over a real store and a real authority."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509
from pydantic import TypeAdapter

from tests.contract.store_rows import START, ManualClock
from tests.integration.listeners import HeardHints, HostCaller, a_heartbeat, bare, state_of
from workers.domain.host import HostState
from workers.domain.messages import HeartbeatAnswer, OverlayPlace, RegistrationAnswer, RegistrationRequest
from workers.domain.names import HostId
from workers.domain.overlay import Overlay, Station, peers_of_host, stamp_of
from workers.identity import Authority, make_csr
from workers.store.repository import SqlStore

A, B = HostId("spot-host-a"), HostId("spot-host-b")
HUB_KEY, KEY_A, KEY_B = (base64.b64encode(bytes([number]) * 32).decode() for number in (9, 1, 2))
PUBLIC = "192.0.2.16:51820"


@pytest.fixture
def seated(store: SqlStore, authority: Authority, hints: HeardHints, clock: ManualClock) -> HostCaller:
    for name in (A, B):
        store.hosts.add(bare(name, HostState.LAUNCHING))
    return HostCaller(store, authority, hints, clock, overlay=Overlay.WIREGUARD)


def request(store: SqlStore, host_id: HostId, key: str | None, endpoint: str | None = None) -> RegistrationRequest:
    token = store.issue_token(host_id, START + timedelta(minutes=5))
    return RegistrationRequest(host_id, token, make_csr(host_id)[1], "192.168.1.2", key, endpoint)


def register(caller: HostCaller, asked: RegistrationRequest) -> OverlayPlace:
    answer = caller.post("/v1/register", None, asked)
    assert answer.status_code == 200, answer.text
    place = TypeAdapter(RegistrationAnswer).validate_json(answer.data).place
    assert place is not None
    return place


def beat(caller: HostCaller, host_id: HostId, stamp: str | None) -> HeartbeatAnswer:
    answer = caller.post("/v1/heartbeat", host_id, replace(a_heartbeat(), peers=stamp))
    return TypeAdapter(HeartbeatAnswer).validate_json(answer.data)


def test_a_host_is_given_an_address_and_its_certificate_names_that_one(
    seated: HostCaller, store: SqlStore, authority: Authority
) -> None:
    hub = store.note_hub(HUB_KEY, "192.0.2.3:51820")
    answer = seated.post("/v1/register", None, request(store, A, KEY_A, PUBLIC))
    given = TypeAdapter(RegistrationAnswer).validate_json(answer.data)
    me = Station(KEY_A, "10.91.0.16", PUBLIC)
    assert given.place == OverlayPlace("10.91.0.16", peers_of_host(me, hub, []))
    names = x509.load_pem_x509_certificate(given.certificate.encode()).extensions
    named = names.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(ip) for ip in named.get_values_for_type(x509.IPAddress)] == ["10.91.0.16"]
    host = store.hosts.get(A)
    assert host is not None
    assert host.address == "10.91.0.16"


def test_before_the_hub_is_known_a_machine_is_asked_to_come_again(seated: HostCaller, store: SqlStore) -> None:
    asked = request(store, A, KEY_A)
    answer = seated.post("/v1/register", None, asked)
    assert answer.status_code == 503
    assert state_of(store, A) is HostState.LAUNCHING
    store.note_hub(HUB_KEY, "192.0.2.3:51820")
    assert seated.post("/v1/register", None, asked).status_code == 503, "looked up once a second"


def test_who_came_too_early_registers_a_second_later(seated: HostCaller, store: SqlStore, clock: ManualClock) -> None:
    asked = request(store, A, KEY_A)
    assert seated.post("/v1/register", None, asked).status_code == 503
    store.note_hub(HUB_KEY, "192.0.2.3:51820")
    clock.move(timedelta(seconds=1))
    assert register(seated, asked).address == "10.91.0.16"


@pytest.mark.parametrize(
    ("key", "endpoint", "field"),
    [(None, None, "wireguard_key"), ("AAAA", None, "key"), (KEY_A, "nowhere", "endpoint")],
)
def test_what_makes_no_sense_burns_no_token(
    seated: HostCaller, store: SqlStore, key: str | None, endpoint: str | None, field: str
) -> None:
    store.note_hub(HUB_KEY, "192.0.2.3:51820")
    asked = request(store, A, key, endpoint)
    answer = seated.post("/v1/register", None, asked)
    assert (answer.status_code, answer.get_json()["error"].split(":")[0]) == (400, field)
    assert store.burn_token(asked.token, "192.168.1.2") == A
    assert store.stations() == {}


def test_without_a_good_token_nobody_gets_a_place(seated: HostCaller, store: SqlStore) -> None:
    store.note_hub(HUB_KEY, "192.0.2.3:51820")
    asked = replace(request(store, A, KEY_A), token="invented")
    assert seated.post("/v1/register", None, asked).status_code == 403
    assert store.stations() == {}


def test_a_machine_that_shows_another_s_key_is_refused_and_told_why(seated: HostCaller, store: SqlStore) -> None:
    store.note_hub(HUB_KEY, "192.0.2.3:51820")
    register(seated, request(store, A, KEY_A))
    for key in (KEY_A, HUB_KEY):
        answer = seated.post("/v1/register", None, request(store, B, key))
        assert answer.status_code == 403
        assert "remove `identity/wireguard.key` from the image" in answer.get_json()["error"]
    assert list(store.stations()) == [A]
    assert state_of(store, B) is HostState.LAUNCHING


def test_a_heartbeat_brings_all_peers_when_they_are_others_and_nothing_otherwise(
    seated: HostCaller, store: SqlStore, clock: ManualClock
) -> None:
    hub = store.note_hub(HUB_KEY, "192.0.2.3:51820")
    alone = stamp_of(register(seated, request(store, A, KEY_A, PUBLIC)).peers)
    assert beat(seated, A, alone).peers is None
    register(seated, request(store, B, KEY_B))
    clock.move(timedelta(seconds=1))
    b = Station(KEY_B, "10.91.0.17", None)
    told = beat(seated, A, alone).peers
    assert told == peers_of_host(Station(KEY_A, "10.91.0.16", PUBLIC), hub, [b])
    assert beat(seated, A, stamp_of(told or ())).peers is None
    with store.hosts.lease(B) as lease:
        lease.write(replace(lease.row, state=HostState.TERMINATED))
    clock.move(timedelta(seconds=1))
    left = beat(seated, A, stamp_of(told or ())).peers
    assert [peer.key for peer in left or ()] == [HUB_KEY], "who has ended is nobody's peer any more"


def test_a_hub_that_was_made_anew_is_told_to_everybody(seated: HostCaller, store: SqlStore, clock: ManualClock) -> None:
    store.note_hub(KEY_B, "192.0.2.3:51820")
    stamp = stamp_of(register(seated, request(store, A, KEY_A)).peers)
    store.note_hub(HUB_KEY, "192.0.2.4:51820")
    clock.move(timedelta(seconds=1))
    assert [(peer.key, peer.endpoint) for peer in beat(seated, A, stamp).peers or ()] == [(HUB_KEY, "192.0.2.4:51820")]


def test_without_an_overlay_nobody_is_told_of_one(
    store: SqlStore, authority: Authority, hints: HeardHints, clock: ManualClock
) -> None:
    store.hosts.add(bare(A, HostState.LAUNCHING))
    caller = HostCaller(store, authority, hints, clock)
    answer = caller.post("/v1/register", None, request(store, A, None))
    assert TypeAdapter(RegistrationAnswer).validate_json(answer.data).place is None
    assert beat(caller, A, None).peers is None
    assert store.stations() == {}
