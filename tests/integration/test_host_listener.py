"""What a host may say, over a real store and a real authority; the certificate on the socket is the host's name."""

from __future__ import annotations

import ssl
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509
from pydantic import TypeAdapter

from tests.contract.store_rows import START, ManualClock, a_host, a_runner
from tests.integration.listeners import PACKAGE, HeardHints, HostCaller, a_heartbeat, bare, happened, state_of
from webhook.bodies import BODY_LIMIT_BYTES
from workers.domain.events import Happening
from workers.domain.hold import HoldWish
from workers.domain.host import HostState
from workers.domain.messages import (
    GuestRunnerState,
    MonitorState,
    Notice,
    NoticeKind,
    RegistrationAnswer,
    RegistrationRequest,
    RenewalRequest,
    RunnerReport,
    Word,
)
from workers.domain.names import HostId, RunnerId
from workers.identity import Authority, make_csr
from workers.store.repository import SqlStore

H = HostId("spot-host-a")
T = HostId("spot-host-b")


class TestRegistration:
    @pytest.fixture(autouse=True)
    def _launching(self, store: SqlStore) -> None:
        store.hosts.add(bare(H, HostState.LAUNCHING))
        store.hosts.add(bare(T, HostState.LAUNCHING))

    def request(self, token: str, host_id: HostId = H) -> RegistrationRequest:
        return RegistrationRequest(host_id=host_id, token=token, csr=make_csr(host_id)[1], address="10.90.0.16")

    def token(self, store: SqlStore, host_id: HostId = H) -> str:
        return store.issue_token(host_id, START + timedelta(minutes=5))

    def test_a_token_makes_a_machine_a_host_once(
        self, caller: HostCaller, store: SqlStore, authority: Authority, hints: HeardHints
    ) -> None:
        request = self.request(self.token(store))
        answer = caller.post("/v1/register", None, request)
        assert answer.status_code == 200
        given = TypeAdapter(RegistrationAnswer).validate_json(answer.data)
        leaf = x509.load_pem_x509_certificate(given.certificate.encode())
        leaf.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.hosts_ca.encode()))
        assert leaf.subject.rfc4514_string() == f"CN={H},O=spot-runner"
        assert (given.control_ca, given.hosts_ca) == (authority.control_ca, authority.hosts_ca)
        host = store.hosts.get(H)
        assert host is not None
        assert (host.state, host.address) == (HostState.PREPARING, "10.90.0.16")
        assert happened(store) == [Happening.HOST_RUNNING, Happening.HOST_REGISTERED]
        assert hints.heard == [("host", (H,), False)]
        assert caller.post("/v1/register", None, request).status_code == 403

    def test_a_token_is_good_for_its_own_host_only(self, caller: HostCaller, store: SqlStore) -> None:
        assert caller.post("/v1/register", None, self.request(self.token(store, T))).status_code == 403
        assert state_of(store, H) is HostState.LAUNCHING

    def test_a_host_gets_its_next_certificate_for_its_own_name_only(
        self, caller: HostCaller, store: SqlStore, authority: Authority
    ) -> None:
        assert caller.post("/v1/register", None, self.request(self.token(store))).status_code == 200
        request = RenewalRequest(make_csr(T)[1])  # whatever the request says, the name comes from the socket
        answer = caller.post("/v1/renew", H, request)
        assert answer.status_code == 200
        leaf = x509.load_pem_x509_certificate(
            TypeAdapter(RegistrationAnswer).validate_json(answer.data).certificate.encode()
        )
        leaf.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.hosts_ca.encode()))
        assert leaf.subject.rfc4514_string() == f"CN={H},O=spot-runner"
        assert caller.post("/v1/renew", None, request).status_code == 403
        assert caller.post("/v1/renew", T, request).status_code == 403, "it has never registered"

    @pytest.mark.parametrize("minutes", [6, 600])
    def test_an_old_token_is_worth_nothing(
        self, caller: HostCaller, store: SqlStore, clock: ManualClock, minutes: int
    ) -> None:
        request = self.request(self.token(store))
        clock.move(timedelta(minutes=minutes))
        assert caller.post("/v1/register", None, request).status_code == 403

    def test_an_invented_token_or_host_is_refused(self, caller: HostCaller, store: SqlStore) -> None:
        assert caller.post("/v1/register", None, self.request("invented")).status_code == 403
        stranger = self.request(self.token(store), HostId("spot-host-unknown"))
        assert caller.post("/v1/register", None, stranger).status_code == 403

    def test_a_request_that_cannot_be_signed_burns_no_token(self, caller: HostCaller, store: SqlStore) -> None:
        request = self.request(self.token(store))
        assert caller.post("/v1/register", None, replace(request, csr="no request")).status_code == 400
        assert caller.post("/v1/register", None, replace(request, address="example.org")).status_code == 400
        assert caller.post("/v1/register", None, request).status_code == 200

    def test_a_row_that_is_being_worked_on_is_answered_503_and_burns_no_token(
        self, caller: HostCaller, store: SqlStore
    ) -> None:
        request = self.request(self.token(store))
        with store.hosts.lease(H):
            assert caller.post("/v1/register", None, request).status_code == 503
        assert caller.post("/v1/register", None, request).status_code == 200

    def test_of_many_at_once_one_is_registered(self, caller: HostCaller, store: SqlStore) -> None:
        request = self.request(self.token(store))
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: caller.post("/v1/register", None, request).status_code, range(8)))
        assert answers.count(200) == 1
        assert set(answers) <= {200, 403, 503}  # 503: the row was the winner's for longer than one waits for it


class TestIdentity:
    @pytest.mark.parametrize("path", ["/v1/heartbeat", "/v1/notice", "/v1/migrations/m/paused"])
    def test_nobody_says_anything_without_a_certificate(self, caller: HostCaller, path: str) -> None:
        assert caller.post(path, None, a_heartbeat()).status_code == 403

    def test_a_terminated_or_unknown_host_is_refused_everywhere(self, caller: HostCaller, store: SqlStore) -> None:
        store.hosts.add(a_host(H, state=HostState.TERMINATED))
        for name in (H, "spot-host-unknown"):
            assert caller.post("/v1/heartbeat", name, a_heartbeat()).status_code == 403
            assert caller.post("/v1/notice", name, Notice(NoticeKind.INTERRUPTION, 60)).status_code == 403
            assert caller.get("/v1/migrations/spot-move-1", name).status_code == 403
            assert caller.post("/v1/migrations/spot-move-1/aborted", name, Word(epoch=2)).status_code == 403

    def test_a_host_that_was_admitted_is_refused_a_second_after_its_end(
        self, caller: HostCaller, store: SqlStore, clock: ManualClock
    ) -> None:
        store.hosts.add(a_host(H, state=HostState.TERMINATING))
        assert caller.get("/v1/migrations/spot-move-1", H).status_code == 404
        with store.hosts.lease(H) as lease:
            lease.write(replace(lease.row, state=HostState.TERMINATED))
        clock.move(timedelta(seconds=1.1))
        assert caller.get("/v1/migrations/spot-move-1", H).status_code == 403

    def test_the_issuer_is_given_to_everybody(self, caller: HostCaller, authority: Authority) -> None:
        answer = caller.get("/v1/ca", None)
        assert answer.text == authority.control_ca
        assert ssl.PEM_cert_to_DER_cert(answer.text)


class TestHeartbeat:
    def test_a_host_that_has_proved_itself_becomes_ready_once(
        self, caller: HostCaller, store: SqlStore, hints: HeardHints
    ) -> None:
        store.hosts.add(bare(H, HostState.PREPARING))
        assert caller.post("/v1/heartbeat", H, a_heartbeat(ready=False)).status_code == 200
        assert state_of(store, H) is HostState.PREPARING
        for _ in range(2):
            answer = caller.post("/v1/heartbeat", H, a_heartbeat())
            assert answer.get_json() == {"packages": [PACKAGE], "peers": None}
        assert state_of(store, H) is HostState.READY
        assert happened(store) == [Happening.HOST_READY]
        assert hints.heard == [("host", (H,), False)]

    @pytest.mark.parametrize("state", [HostState.DRAINING, HostState.LOST, HostState.TERMINATING])
    def test_a_leaving_host_does_not_become_ready_by_living(
        self, caller: HostCaller, store: SqlStore, state: HostState
    ) -> None:
        store.hosts.add(a_host(H, state=state))
        assert caller.post("/v1/heartbeat", H, a_heartbeat()).status_code == 200
        assert state_of(store, H) is state

    def test_it_is_noted_while_somebody_works_on_the_row(
        self, caller: HostCaller, store: SqlStore, clock: ManualClock
    ) -> None:
        store.hosts.add(a_host(H))
        clock.move(timedelta(seconds=5))
        with store.hosts.lease(H) as lease:
            assert caller.post("/v1/heartbeat", H, a_heartbeat()).status_code == 200
            lease.write(replace(lease.row, state=HostState.DRAINING))
        host = store.hosts.get(H)
        assert host is not None
        assert (host.heartbeat_at, host.state) == (clock.now(), HostState.DRAINING)

    def test_the_end_of_a_guest_is_hinted_at_once(self, caller: HostCaller, store: SqlStore, hints: HeardHints) -> None:
        store.hosts.add(a_host(H))
        for number in (1, 2, 3):
            store.runners.add(a_runner(number, H))
        reports = (
            RunnerReport(RunnerId("spot-runner-1"), 1, MonitorState.RUNNING, GuestRunnerState.RUNNING),
            RunnerReport(RunnerId("spot-runner-2"), 1, MonitorState.RUNNING, GuestRunnerState.ENDED, 0),
            RunnerReport(RunnerId("spot-runner-3"), 1, MonitorState.GONE),
        )
        caller.post("/v1/heartbeat", H, a_heartbeat(*reports))
        assert hints.heard == [("runner", ("spot-runner-2", "spot-runner-3"), False)]
        caller.post("/v1/heartbeat", H, a_heartbeat(*reports))
        ended = replace(reports[0], guest=GuestRunnerState.ENDED)
        caller.post("/v1/heartbeat", H, a_heartbeat(ended, *reports[1:]))
        assert hints.heard[1:] == [("runner", ("spot-runner-1",), False)]
        caller.post("/v1/heartbeat", H, a_heartbeat(*reports))
        assert [store.report_of(report.runner_id) for report in reports] == list(reports)

    def test_a_body_over_the_limit_or_of_another_kind_is_refused(self, caller: HostCaller, store: SqlStore) -> None:
        store.hosts.add(a_host(H))
        assert caller.post("/v1/heartbeat", H, b" " * (BODY_LIMIT_BYTES + 1)).status_code == 413
        assert caller.post("/v1/heartbeat", H, b"{}").status_code == 400
        assert caller.post("/v1/heartbeat", H, Notice(NoticeKind.INTERRUPTION, 1)).status_code == 400


class TestHold:
    R = RunnerId("spot-runner-1")

    @pytest.fixture(autouse=True)
    def _running(self, store: SqlStore) -> None:
        for name in (H, T):
            store.hosts.add(a_host(name))
        store.runners.add(a_runner(1, H))

    def beat(self, caller: HostCaller, number: int, seconds: float, host: HostId = H, epoch: int = 1) -> None:
        wish = HoldWish(number, seconds)
        report = RunnerReport(self.R, epoch, MonitorState.RUNNING, GuestRunnerState.RUNNING, hold=wish)
        assert caller.post("/v1/heartbeat", host, a_heartbeat(report)).status_code == 200

    def test_a_job_is_held_by_the_clock_of_the_control_plane(
        self, caller: HostCaller, store: SqlStore, clock: ManualClock
    ) -> None:
        began = clock.now()
        for _ in range(3):
            self.beat(caller, 1, 120)
            clock.move(timedelta(seconds=1))
        assert store.held(clock.now()) == {self.R: began + timedelta(seconds=120)}
        (event,) = (event for _, event in store.timeline())
        assert (event.happening, event.job_id, event.runner_id) == (Happening.HOLD_BEGAN, 1, self.R)
        assert event.detail == {"held_until": (began + timedelta(seconds=120)).isoformat(timespec="seconds")}

    def test_it_is_let_go_and_told_of_once(self, caller: HostCaller, store: SqlStore, clock: ManualClock) -> None:
        self.beat(caller, 1, 120)
        for number in (2, 3):
            self.beat(caller, number, 0)
            assert store.held(clock.now()) == {}
        assert happened(store) == [Happening.HOLD_BEGAN, Happening.HOLD_ENDED]

    def test_nobody_is_held_beyond_what_the_pool_allows(
        self, caller: HostCaller, store: SqlStore, clock: ManualClock
    ) -> None:
        """The guest lies about every number, and asks anew with every heartbeat."""
        end = clock.now() + timedelta(seconds=600)
        for number in range(1, 900):
            self.beat(caller, number, 1e300)
            clock.move(timedelta(seconds=1))
            assert all(until <= end for until in store.held(clock.now()).values())
        assert store.held(clock.now()) == {}
        assert len(happened(store)) <= 61

    def test_a_host_speaks_for_its_own_guests_only(
        self, caller: HostCaller, store: SqlStore, clock: ManualClock
    ) -> None:
        self.beat(caller, 1, 120, host=T)
        self.beat(caller, 1, 120, epoch=2)
        assert store.held(clock.now()) == {}
        assert store.hold_of(self.R) is None

    def test_a_restarted_daemon_that_has_not_asked_yet_ends_no_hold(
        self, caller: HostCaller, store: SqlStore, clock: ManualClock
    ) -> None:
        self.beat(caller, 1, 120)
        caller.post("/v1/heartbeat", H, a_heartbeat(RunnerReport(self.R, 1, MonitorState.RUNNING)))
        assert list(store.held(clock.now())) == [self.R]


class TestNotice:
    def left(self, store: SqlStore, clock: ManualClock) -> float | None:
        host = store.hosts.get(H)
        return (host.deadline_at - clock.now()).total_seconds() if host and host.deadline_at else None

    @pytest.mark.parametrize("state", [HostState.LAUNCHING, HostState.PREPARING, HostState.READY, HostState.DRAINING])
    def test_a_notice_drains_the_host_and_is_urgent(
        self, caller: HostCaller, store: SqlStore, hints: HeardHints, clock: ManualClock, state: HostState
    ) -> None:
        store.hosts.add(bare(H, state))
        assert caller.post("/v1/notice", H, Notice(NoticeKind.INTERRUPTION, 60)).status_code == 204
        assert (state_of(store, H), self.left(store, clock)) == (HostState.DRAINING, 60)
        assert happened(store) == [Happening.HOST_NOTICE]
        assert hints.heard == [("host", (H,), True)]

    def test_a_deadline_comes_nearer_and_never_goes_away(
        self, caller: HostCaller, store: SqlStore, clock: ManualClock
    ) -> None:
        store.hosts.add(bare(H, HostState.READY))
        for seconds, expected in ((60, 60), (90, 60), (60, 60), (20, 20), (60, 20), (0, 0)):
            assert caller.post("/v1/notice", H, Notice(NoticeKind.INTERRUPTION, seconds)).status_code == 204
            assert self.left(store, clock) == expected
        assert happened(store) == [Happening.HOST_NOTICE] * 3

    def test_a_notice_that_is_said_every_second_is_told_once(
        self, caller: HostCaller, store: SqlStore, clock: ManualClock
    ) -> None:
        store.hosts.add(bare(H, HostState.READY))
        for second in range(5):
            caller.post("/v1/notice", H, Notice(NoticeKind.INTERRUPTION, 60 - second + 0.1 * (second % 2)))
            clock.move(timedelta(seconds=1))
        assert happened(store) == [Happening.HOST_NOTICE]

    @pytest.mark.parametrize("seconds", [-1, 1e9])
    def test_an_impossible_deadline_is_refused(self, caller: HostCaller, store: SqlStore, seconds: float) -> None:
        store.hosts.add(bare(H, HostState.READY))
        assert caller.post("/v1/notice", H, Notice(NoticeKind.INTERRUPTION, seconds)).status_code == 400
        assert state_of(store, H) is HostState.READY

    def test_an_advice_to_rebalance_is_recorded_and_takes_nothing_away(
        self, caller: HostCaller, store: SqlStore
    ) -> None:
        store.hosts.add(bare(H, HostState.READY))
        assert caller.post("/v1/notice", H, Notice(NoticeKind.REBALANCE, 0)).status_code == 204
        assert (state_of(store, H), happened(store)) == (HostState.READY, [Happening.HOST_NOTICE])

    def test_a_host_with_a_notice_does_not_become_ready_any_more(self, caller: HostCaller, store: SqlStore) -> None:
        store.hosts.add(bare(H, HostState.PREPARING))
        caller.post("/v1/notice", H, Notice(NoticeKind.INTERRUPTION, 60))
        caller.post("/v1/heartbeat", H, a_heartbeat())
        assert state_of(store, H) is HostState.DRAINING
