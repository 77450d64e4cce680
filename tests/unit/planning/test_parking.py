"""What becomes of a guest in the object store: pure decisions."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from tests.contract.store_rows import START, a_host, a_migration, a_runner, room_for
from tests.fakes.classes import VIRTUALIZED
from workers.domain.errors import Bug
from workers.domain.host import Host
from workers.domain.migration import (
    MIGRATION,
    Migration,
    MigrationPhase,
    Role,
    Said,
    aborted,
    decide,
    ended,
    may_pause,
    owner_after,
    stored,
    taken_out,
)
from workers.domain.names import HostId, MigrationId
from workers.domain.runner import Runner, RunnerEnd, RunnerState
from workers.planning.capacity import stranded
from workers.planning.fleet import Fleet, binds
from workers.planning.moving import Abort, MigrationSeen, MigrationStep, given_up
from workers.planning.moving import next_step as next_move
from workers.planning.parking import ParkSeen, ParkStep, host_for, next_step, planned_park, planned_resume
from workers.planning.running import Ending, RunnerSeen, RunnerStep, is_dead, is_lost_with_its_host
from workers.planning.running import next_step as next_of_runner

P = MigrationPhase
KEY = "5a" * 32
LIMIT = timedelta(minutes=8)
SOURCE = a_host("a")
RUNNER = replace(a_runner(1, "a"), end=None)
PARK = planned_park(RUNNER, SOURCE, MigrationId("park"), KEY, START)
PARKED = replace(RUNNER, host_id=None, epoch=PARK.epoch, parked_at=START)
TARGET = replace(a_host("b", room_for(2)), deadline_at=None)


def park(phase: MigrationPhase, **changes: object) -> Migration:
    return replace(PARK, phase=phase, manifest="m", **changes)  # type: ignore[arg-type]


def resume(phase: MigrationPhase = P.PLANNED) -> Migration:
    row = planned_resume(PARKED, park(P.COMMITTED), TARGET, MigrationId("resume"), START, LIMIT)
    return replace(row, phase=phase)


class TestLaw:
    def test_a_commit_gives_the_runner_to_the_store_and_a_resume_takes_it_out(self) -> None:
        row = stored(park(P.PAUSED), START)
        assert owner_after(row) == {"host_id": None, "epoch": 2, "migration_id": None, "parked_at": START}
        back = decide(resume(P.PAUSED), Role.TARGET, Said.COMMITTED, START)
        assert owner_after(back) == {"host_id": "b", "epoch": 3, "migration_id": None, "parked_at": None}

    def test_only_the_store_is_spoken_for(self) -> None:
        with pytest.raises(Bug, match="no park"):
            stored(a_migration(RUNNER, "b", P.PAUSED), START)
        with pytest.raises(Bug, match="whole"):
            stored(replace(PARK, phase=P.PAUSED), START)
        with pytest.raises(Bug, match="store"):
            taken_out(a_migration(RUNNER, "b", P.COPYING))

    def test_no_host_commits_a_park(self) -> None:
        row = park(P.PAUSED)
        assert decide(row, Role.SOURCE, Said.COMMITTED, START) is row
        assert row.role_of(HostId("b")) is None

    @pytest.mark.parametrize("phase", [P.COPYING, P.COMMITTED, P.ABORTED, P.FINISHED])
    def test_what_is_decided_or_not_paused_is_not_committed(self, phase: MigrationPhase) -> None:
        row = park(phase)
        assert stored(row, START) is row

    def test_the_key_is_gone_with_the_end(self) -> None:
        assert aborted(park(P.COPYING), "why", source_is_gone=False).key is None
        assert ended(park(P.COMMITTED)).key is None
        assert stored(park(P.PAUSED), START).key == KEY
        assert KEY not in repr(PARK)

    def test_a_park_pauses_on_its_sources_sight_alone(self) -> None:
        row = park(P.COPYING, source_seen_at=START)
        assert may_pause(row, START)
        assert not may_pause(row, START + timedelta(seconds=2))
        assert not may_pause(replace(row, source_seen_at=None), START)

    def test_a_resume_is_finished_when_its_guest_runs(self) -> None:
        row = decide(resume(P.COMMITTED), Role.TARGET, Said.RUNNING, START)
        assert row.phase is P.FINISHED


class TestPark:
    @pytest.mark.parametrize("phase", [P.PLANNED, P.RECEIVING, P.COPYING, P.FINISHED])
    def test_before_the_pause_and_after_the_end_there_is_nothing_to_see(self, phase: MigrationPhase) -> None:
        assert next_step(ParkSeen(park(phase), RUNNER)) is ParkStep.WAIT

    def test_every_phase_and_runner_has_a_step(self) -> None:
        for phase in MIGRATION.moves:
            for runner in (None, RUNNER, PARKED):
                assert isinstance(next_step(ParkSeen(park(phase), runner)), ParkStep)

    def test_what_is_said_to_be_stored_is_looked_at(self) -> None:
        assert next_step(ParkSeen(park(P.PAUSED), RUNNER)) is ParkStep.LOOK

    def test_whoever_lies_there_and_has_a_job_is_taken_out(self) -> None:
        assert next_step(ParkSeen(park(P.COMMITTED), PARKED)) is ParkStep.RESUME

    @pytest.mark.parametrize("state", [RunnerState.BUSY, RunnerState.STOPPING])
    def test_nothing_is_destroyed_while_somebody_takes_it_out(self, state: RunnerState) -> None:
        runner = replace(PARKED, state=state, migration_id=MigrationId("resume"))
        assert next_step(ParkSeen(park(P.COMMITTED), runner)) is ParkStep.WAIT

    @pytest.mark.parametrize(
        "runner",
        [
            None,
            replace(PARKED, state=RunnerState.GONE),
            replace(PARKED, state=RunnerState.STOPPING),
            replace(PARKED, epoch=3, host_id=HostId("b")),
            replace(PARKED, epoch=3, host_id=HostId("b"), migration_id=MigrationId("later")),
        ],
    )
    def test_what_nobody_needs_is_destroyed(self, runner: Runner | None) -> None:
        assert next_step(ParkSeen(park(P.COMMITTED), runner)) is ParkStep.END
        assert next_step(ParkSeen(park(P.ABORTED), runner)) is ParkStep.END


class TestHost:
    def fleet(self, *hosts: Host) -> Fleet:
        return Fleet(hosts, (PARKED,))

    def test_a_ready_host_of_its_class_with_room_takes_it(self) -> None:
        assert host_for(PARKED, SOURCE, self.fleet(SOURCE, TARGET)) == TARGET

    def test_another_class_no_room_or_an_unknown_source_do_not(self) -> None:
        other = replace(TARGET, host_class=VIRTUALIZED)
        full = replace(TARGET, spec=room_for(0))
        assert host_for(PARKED, SOURCE, self.fleet(SOURCE, other, replace(full, id=HostId("c")))) is None
        assert host_for(PARKED, None, self.fleet(TARGET)) is None

    def test_one_that_was_tried_comes_last(self) -> None:
        second = replace(TARGET, id=HostId("c"))
        assert host_for(PARKED, SOURCE, self.fleet(TARGET, second), {HostId("b")}) == second
        assert host_for(PARKED, SOURCE, self.fleet(TARGET), {HostId("b")}) == TARGET

    def test_room_is_bought_for_it(self) -> None:
        assert stranded(self.fleet(SOURCE)) == (PARKED,)
        assert stranded(Fleet((), (replace(PARKED, migration_id=MigrationId("resume")),))) == ()

    def test_a_source_that_has_wiped_its_guest_is_free(self) -> None:
        assert binds(park(P.COMMITTED), SOURCE.id)
        assert not binds(park(P.COMMITTED, wiped_at=START), SOURCE.id)


class TestMigration:
    def seen(self, row: Migration, source: Host | None, target: Host | None) -> MigrationSeen:
        return MigrationSeen(row, source, target, PARKED)

    def test_the_store_is_never_lost(self) -> None:
        assert next_move(self.seen(park(P.COPYING, source_seen_at=START), SOURCE, None), START) is MigrationStep.WAIT
        assert next_move(self.seen(resume(P.COPYING), None, TARGET), START) is MigrationStep.SEND
        assert next_move(self.seen(resume(P.PAUSED), None, TARGET), START) is MigrationStep.WAIT

    def test_a_lost_target_frees_the_guest_for_another(self) -> None:
        step = next_move(self.seen(resume(P.PAUSED), None, None), START)
        assert step == Abort("the target is lost")
        assert given_up(self.seen(resume(P.PAUSED), None, None), "why").phase is P.ABORTED

    def test_a_target_that_takes_too_long_is_given_up(self) -> None:
        late = START + timedelta(minutes=2)
        assert isinstance(next_move(self.seen(resume(P.PAUSED), None, TARGET), late), Abort)

    def test_a_paused_park_whose_source_is_gone_is_for_the_store_to_decide(self) -> None:
        seen = self.seen(park(P.PAUSED), None, None)
        assert next_move(seen, START + timedelta(hours=1)) is MigrationStep.WAIT
        assert given_up(seen, "why") is seen.row

    def test_a_committed_park_is_nobodys_to_point_at_or_to_finish(self) -> None:
        assert next_move(self.seen(park(P.COMMITTED, wiped_at=START), None, None), START) is MigrationStep.WAIT


class TestRunner:
    def seen(self, runner: Runner) -> RunnerSeen:
        return RunnerSeen(runner, None, None, None, LIMIT)

    def test_a_parked_runner_is_alive_until_it_is_given_up(self) -> None:
        assert not is_dead(self.seen(PARKED))
        assert next_of_runner(self.seen(PARKED), START + LIMIT) is RunnerStep.WAIT
        late = START + LIMIT + timedelta(seconds=1)
        assert next_of_runner(self.seen(PARKED), late) == Ending(RunnerEnd.PARKED_TOO_LONG)

    def test_one_that_is_given_up_is_not_buried_before_its_resume_is_decided(self) -> None:
        runner = replace(PARKED, state=RunnerState.STOPPING, end=RunnerEnd.PARKED_TOO_LONG)
        assert is_dead(self.seen(runner))
        undecided = replace(runner, migration_id=MigrationId("resume"))
        assert not is_dead(self.seen(undecided))
        assert next_of_runner(self.seen(undecided), START) is RunnerStep.ABORT_MOVE

    def test_a_job_that_github_fails_while_its_guest_is_parked_was_lost(self) -> None:
        for end in (None, RunnerEnd.PARKED_TOO_LONG):
            assert is_lost_with_its_host(self.seen(replace(PARKED, end=end)), is_host_silent=True)

    def test_one_that_fails_sooner_than_a_lock_expires_had_failed_by_itself(self) -> None:
        assert not is_lost_with_its_host(self.seen(PARKED), is_host_silent=False)
