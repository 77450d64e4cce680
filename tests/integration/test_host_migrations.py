"""What two hosts may say of their migration's row, over a real store."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509
from pydantic import TypeAdapter
from werkzeug.test import TestResponse

from tests.contract.store_rows import ManualClock, a_host, a_migration, a_runner
from tests.integration.listeners import HeardHints, HostCaller, a_heartbeat, bare, happened
from workers.domain.events import Happening
from workers.domain.host import HostState
from workers.domain.messages import RegistrationAnswer, RenewalRequest, RowView, Word
from workers.domain.migration import Migration, MigrationPhase
from workers.domain.names import HostId
from workers.identity import Authority, make_csr
from workers.store.repository import SqlStore

H = HostId("spot-host-a")
T = HostId("spot-host-b")
ROW = TypeAdapter(RowView)


class TestMigration:
    @pytest.fixture(autouse=True)
    def _moving(self, store: SqlStore) -> None:
        store.hosts.add(a_host(H, state=HostState.DRAINING))
        store.hosts.add(bare(T, HostState.READY))
        store.hosts.add(bare("spot-host-c", HostState.READY))

    def plan(self, store: SqlStore, phase: MigrationPhase) -> Migration:
        runner = a_runner(1, H)
        row = replace(a_migration(runner, T, phase), source_seen_at=None, target_seen_at=None, figures={})
        store.runners.add(replace(runner, migration_id=row.id))
        store.migrations.add(row)
        return row

    def view(self, answer: TestResponse) -> RowView:
        assert answer.status_code == 200, answer.text
        return ROW.validate_json(answer.data)

    def say(self, caller: HostCaller, who: HostId, said: str, **figures: float) -> RowView:
        return self.view(caller.post(f"/v1/migrations/spot-move-1/{said}", who, Word(epoch=2, figures=figures)))

    def test_both_sides_must_have_reached_the_row_within_a_second(
        self, caller: HostCaller, store: SqlStore, clock: ManualClock
    ) -> None:
        self.plan(store, MigrationPhase.COPYING)
        assert not self.view(caller.get("/v1/migrations/spot-move-1", H)).may_pause
        assert self.view(caller.get("/v1/migrations/spot-move-1", T)).may_pause
        clock.move(timedelta(seconds=0.9))
        assert self.view(caller.get("/v1/migrations/spot-move-1", T)).may_pause
        clock.move(timedelta(seconds=0.2))
        assert not self.view(caller.get("/v1/migrations/spot-move-1", T)).may_pause

    def certificate(self, caller: HostCaller, who: str | None) -> TestResponse:
        request = RenewalRequest(make_csr(HostId("spot-host-liar"))[1])
        return caller.post("/v1/migrations/spot-move-1/certificate", who, request)

    def test_each_side_gets_a_certificate_for_its_part_in_this_move_alone(
        self, caller: HostCaller, store: SqlStore, authority: Authority
    ) -> None:
        self.plan(store, MigrationPhase.PLANNED)
        for name in (H, T):
            answer = self.certificate(caller, name)
            assert answer.status_code == 200
            given = TypeAdapter(RegistrationAnswer).validate_json(answer.data)
            leaf = x509.load_pem_x509_certificate(given.certificate.encode())
            leaf.verify_directly_issued_by(x509.load_pem_x509_certificate(given.hosts_ca.encode()))
            assert leaf.subject.rfc4514_string() == f"CN={name}.spot-move-1,O=spot-runner"
            assert given.hosts_ca == authority.hosts_ca

    def test_nobody_else_gets_one_and_nobody_once_there_is_nothing_to_open(
        self, caller: HostCaller, store: SqlStore
    ) -> None:
        row = self.plan(store, MigrationPhase.COPYING)
        store.hosts.add(bare("spot-host-d", HostState.TERMINATED))
        others = {"spot-host-c": 404, "spot-host-d": 403, "spot-host-unknown": 403, None: 403}
        assert {who: self.certificate(caller, who).status_code for who in others} == others
        store.decide(row, replace(row, phase=MigrationPhase.PAUSED))
        assert [self.certificate(caller, who).status_code for who in (H, T)] == [403, 403]

    def test_who_shows_the_certificate_of_a_move_is_no_host(self, caller: HostCaller, store: SqlStore) -> None:
        """So a monitor that was taken over cannot speak for its host."""
        self.plan(store, MigrationPhase.COPYING)
        taken = f"{H}.spot-move-1"
        assert caller.post("/v1/heartbeat", taken, a_heartbeat()).status_code == 403
        assert caller.get("/v1/migrations/spot-move-1", taken).status_code == 403
        assert caller.post("/v1/migrations/spot-move-1/paused", taken, Word(epoch=2)).status_code == 403
        assert caller.post("/v1/renew", taken, RenewalRequest(make_csr(H)[1])).status_code == 403
        assert self.certificate(caller, taken).status_code == 403

    def test_a_move_goes_its_whole_way(self, caller: HostCaller, store: SqlStore, hints: HeardHints) -> None:
        row = self.plan(store, MigrationPhase.COPYING)
        assert self.say(caller, H, "paused", stopped_at=1.0).phase is MigrationPhase.PAUSED
        assert self.say(caller, T, "committed", commit_ms=3.0).phase is MigrationPhase.COMMITTED
        runner = store.runners.get(row.runner_id)
        assert runner is not None
        assert (runner.host_id, runner.epoch, runner.migration_id) == (T, 2, None)
        assert hints.heard == [("migration", (row.id,), False)] * 2
        assert self.say(caller, T, "running", resumed_at=2.0).phase is MigrationPhase.COMMITTED
        assert self.say(caller, H, "wiped").phase is MigrationPhase.FINISHED
        assert happened(store) == [
            Happening.MIGRATION_PAUSED,
            Happening.MIGRATION_COMMITTED,
            Happening.MIGRATION_RUNNING,
            Happening.MIGRATION_FINISHED,
        ]
        ended = store.migrations.get(row.id)
        assert ended is not None
        assert ended.figures == {"stopped_at": 1.0, "commit_ms": 3.0, "resumed_at": 2.0}

    def test_a_doubled_word_is_told_once_and_hears_the_row(self, caller: HostCaller, store: SqlStore) -> None:
        self.plan(store, MigrationPhase.COPYING)
        assert {self.say(caller, H, "paused").phase for _ in range(3)} == {MigrationPhase.PAUSED}
        assert {self.say(caller, T, "committed").phase for _ in range(3)} == {MigrationPhase.COMMITTED}
        assert self.say(caller, H, "paused").phase is MigrationPhase.COMMITTED
        assert self.say(caller, H, "aborted").phase is MigrationPhase.COMMITTED
        assert happened(store) == [Happening.MIGRATION_PAUSED, Happening.MIGRATION_COMMITTED]

    @pytest.mark.parametrize(("who", "said"), [(H, "committed"), (T, "paused"), (H, "running"), (T, "wiped")])
    def test_a_word_of_the_other_side_changes_nothing(
        self, caller: HostCaller, store: SqlStore, who: HostId, said: str
    ) -> None:
        row = self.plan(store, MigrationPhase.PAUSED if said == "committed" else MigrationPhase.COPYING)
        assert self.say(caller, who, said).phase is row.phase
        assert store.migrations.get(row.id) == row

    def test_commit_and_abort_at_once_have_one_winner(self, caller: HostCaller, store: SqlStore) -> None:
        row = self.plan(store, MigrationPhase.PAUSED)
        with ThreadPoolExecutor(2) as pool:
            words = [pool.submit(self.say, caller, *each) for each in ((T, "committed"), (H, "aborted"))]
        phases = {word.result().phase for word in words}
        ended = store.migrations.get(row.id)
        assert ended is not None
        assert phases == {ended.phase}
        assert len(happened(store)) == 1

    def test_running_and_wiped_at_once_finish_the_move(self, caller: HostCaller, store: SqlStore) -> None:
        row = self.plan(store, MigrationPhase.COMMITTED)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda each: self.say(caller, *each), ((T, "running"), (H, "wiped"))))
        ended = store.migrations.get(row.id)
        assert ended is not None
        assert ended.phase is MigrationPhase.FINISHED
        assert sorted(happened(store)) == [Happening.MIGRATION_FINISHED, Happening.MIGRATION_RUNNING]

    def test_an_abort_carries_its_reason(self, caller: HostCaller, store: SqlStore) -> None:
        row = self.plan(store, MigrationPhase.COPYING)
        word = Word(epoch=2, reason="the mirror broke")
        assert caller.post(f"/v1/migrations/{row.id}/aborted", T, word).status_code == 200
        ended = store.migrations.get(row.id)
        assert ended is not None
        assert (ended.phase, ended.reason) == (MigrationPhase.ABORTED, "the mirror broke")
        assert store.timeline()[-1][1].detail == {"reason": "the mirror broke"}

    def test_a_word_of_another_epoch_changes_nothing(self, caller: HostCaller, store: SqlStore) -> None:
        row = self.plan(store, MigrationPhase.COPYING)
        answer = self.view(caller.post(f"/v1/migrations/{row.id}/paused", H, Word(epoch=1)))
        assert (answer.phase, answer.epoch) == (MigrationPhase.COPYING, 2)
        assert happened(store) == []

    def test_a_stranger_sees_and_says_nothing(self, caller: HostCaller, store: SqlStore) -> None:
        row = self.plan(store, MigrationPhase.COPYING)
        assert caller.get(f"/v1/migrations/{row.id}", "spot-host-c").status_code == 404
        assert caller.post(f"/v1/migrations/{row.id}/aborted", "spot-host-c", Word(epoch=2)).status_code == 404
        assert store.migrations.get(row.id) == row

    def test_an_unknown_word_or_row_is_not_found(self, caller: HostCaller, store: SqlStore) -> None:
        row = self.plan(store, MigrationPhase.COPYING)
        assert caller.post(f"/v1/migrations/{row.id}/finished", H, Word(epoch=2)).status_code == 404
        assert caller.get("/v1/migrations/spot-move-2", H).status_code == 404

    def test_too_many_figures_are_refused(self, caller: HostCaller, store: SqlStore) -> None:
        row = self.plan(store, MigrationPhase.COPYING)
        word = Word(epoch=2, figures={f"f{number}": 1.0 for number in range(65)})
        assert caller.post(f"/v1/migrations/{row.id}/paused", H, word).status_code == 400
