"""Who comes with a token that is used, too old, or from elsewhere is not let in, and the host's timeline says so."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from pydantic import TypeAdapter

from tests.contract.store_rows import START, ManualClock
from tests.integration.listeners import HeardHints, HostCaller, a_heartbeat, bare, happened
from webhook.gate import ADDRESS_LIMIT
from workers.domain.events import Event, Happening
from workers.domain.host import HostState
from workers.domain.messages import RegistrationAnswer, RegistrationRequest, Surroundings
from workers.domain.names import HostId
from workers.domain.whereabouts import Machine
from workers.identity import make_csr
from workers.store.repository import SqlStore

H = HostId("spot-host-a")
OWN, PUBLIC, FOREIGN = "10.90.0.16", "198.51.100.7", "203.0.113.9"


@pytest.fixture(autouse=True)
def _launching(store: SqlStore) -> None:
    machine = Machine(addresses=(OWN, PUBLIC))
    store.hosts.add(replace(bare(H, HostState.LAUNCHING), machine=machine, requested_at=START))


def request(store: SqlStore, **changes: object) -> RegistrationRequest:
    token = store.issue_token(H, START + timedelta(minutes=5))
    return replace(RegistrationRequest(H, token, make_csr(H)[1], OWN), **changes)  # type: ignore[arg-type]  # a test knows


def refusals(store: SqlStore) -> list[Event]:
    return [event for _, event in store.timeline() if event.happening is Happening.REGISTRATION_REFUSED]


def test_a_token_that_was_used_is_refused_and_reported_once(caller: HostCaller, store: SqlStore) -> None:
    asked = request(store)
    answer = caller.post("/v1/register", None, asked)
    assert TypeAdapter(RegistrationAnswer).validate_json(answer.data).surroundings == Surroundings()
    for _ in range(3):
        again = caller.post("/v1/register", None, asked)
        assert again.status_code == 403
        assert b"was used already, at 20" in again.data
    (event,) = refusals(store)
    assert event.host_id == H
    assert str(event.detail["because"]).endswith(f"by {OWN}; let another be launched")
    assert asked.token not in str(store.timeline())


def test_a_token_that_is_too_old_is_refused_and_reported(
    caller: HostCaller, store: SqlStore, clock: ManualClock
) -> None:
    asked = request(store)
    clock.move(timedelta(minutes=6))
    assert caller.post("/v1/register", None, asked).status_code == 403
    assert "was good until" in str(refusals(store)[0].detail["because"])


def test_a_token_from_elsewhere_is_refused_once_the_cloud_was_asked_again_and_is_good_for_its_own_machine(
    caller: HostCaller, store: SqlStore, hints: HeardHints, clock: ManualClock
) -> None:
    asked = request(store)
    assert caller.post("/v1/register", None, asked, FOREIGN).status_code == 503
    assert hints.heard == [("host", (H,), False)], "the cloud may have another address of it by now"
    clock.move(ADDRESS_LIMIT)
    answer = caller.post("/v1/register", None, asked, FOREIGN)
    assert (answer.status_code, FOREIGN.encode() in answer.data) == (403, True)
    (event,) = refusals(store)
    assert event.detail["address"] == FOREIGN
    assert f"its machine has {OWN}, {PUBLIC}; if hosts are seen behind a NAT" in str(event.detail["because"])
    assert caller.post("/v1/register", None, asked, f"::ffff:{PUBLIC}").status_code == 200, "nobody has burned it"


def test_an_address_that_the_cloud_told_later_is_its_own(caller: HostCaller, store: SqlStore) -> None:
    asked = request(store)
    assert caller.post("/v1/register", None, asked, FOREIGN).status_code == 503
    with store.hosts.lease(H) as lease:
        lease.write(replace(lease.row, machine=Machine(addresses=(OWN, FOREIGN))))
    assert caller.post("/v1/register", None, asked, FOREIGN).status_code == 200
    assert not refusals(store)


def test_a_cloud_that_tells_no_addresses_keeps_nobody_out(caller: HostCaller, store: SqlStore) -> None:
    with store.hosts.lease(H) as lease:
        lease.write(replace(lease.row, machine=Machine()))
    assert caller.post("/v1/register", None, request(store), FOREIGN).status_code == 200


def test_an_invented_token_is_nobodys_and_reported_of_nobody(caller: HostCaller, store: SqlStore) -> None:
    answer = caller.post("/v1/register", None, request(store, token=f"{H}.invented"))
    assert (answer.status_code, b"its token is unknown" in answer.data) == (403, True)
    assert not refusals(store)


def test_the_timeline_says_how_long_each_stage_took(caller: HostCaller, store: SqlStore, clock: ManualClock) -> None:
    clock.move(timedelta(seconds=20))
    # The kernel is older than the host: it is that of a larger machine, so the daemon says it better.
    assert caller.post("/v1/register", None, request(store, up_s=(3600.0, 2.5))).status_code == 200
    clock.move(timedelta(seconds=1))
    waiting = a_heartbeat(ready=False)
    caller.post("/v1/heartbeat", H, waiting)
    for _ in range(2):
        caller.post("/v1/heartbeat", H, replace(waiting, trouble="the disk of /var is full"))
    stages = {"class_measured": 0.5, "packages_verified": 3.25, "proved": 1.0}
    caller.post("/v1/heartbeat", H, replace(a_heartbeat(), stages_s=stages))
    running, registered, troubled, ready = (event for _, event in store.timeline())
    assert happened(store) == [
        Happening.HOST_RUNNING,
        Happening.HOST_REGISTERED,
        Happening.HOST_TROUBLED,
        Happening.HOST_READY,
    ]
    assert registered.at - running.at == timedelta(seconds=2.5)
    assert troubled.detail == {"because": "the disk of /var is full"}
    assert ready.detail == stages
