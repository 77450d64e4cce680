"""The control plane as a whole, on a fake clock: production decisions and a production receiver, a world in memory."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.fakes.trouble import WorkerDied
from tests.fakes.world import HOST, Faults, World
from workers.domain.errors import Unreachable
from workers.domain.events import Happening
from workers.domain.host import HostState
from workers.domain.job import JobEnd, JobState, Rerun
from workers.domain.migration import MigrationPhase, Said
from workers.domain.names import HostId, JobId
from workers.domain.runner import RunnerState
from workers.planning.lanes import USABLE

MINUTE = timedelta(minutes=1)


def started(world: World, jobs: int = 1) -> list[JobId]:
    """Queue jobs and let time pass until each of them runs."""
    ids = [world.github.queue(run_id) for run_id in range(1, jobs + 1)]
    world.until(lambda: all(_state(world, key) is JobState.RUNNING for key in ids), 2 * MINUTE)
    return ids


def _state(world: World, job_id: JobId) -> JobState | None:
    row = world.store.jobs.get(job_id)
    return row.state if row else None


def host_of(world: World, job_id: JobId) -> HostId:
    job = world.store.jobs.get(job_id)
    assert job is not None
    assert job.runner_id is not None
    runner = world.store.runners.get(job.runner_id)
    assert runner is not None
    assert runner.host_id is not None, "it is parked"
    return runner.host_id


def happened(world: World, happening: Happening) -> int:
    return sum(event.happening is happening for _, event in world.store.timeline())


def test_a_job_is_run_and_everything_is_put_away() -> None:
    world = World()
    (job,) = started(world)
    (runner,) = world.store.runners.open()
    assert (runner.state, runner.job_id) == (RunnerState.BUSY, job)
    verbs = [f"{one.port} {one.verb}" for one in world.trouble.log if one.port in {"host", "relay", "github"}]
    way_up = ["github register", "host boot", "relay point", "host start_runner"]
    assert [verb for verb in verbs if verb in way_up] == way_up, "no guest starts without its network"
    world.until(world.is_quiet, 5 * MINUTE)
    world.check_nothing_is_left()
    assert world.github.conclusions(1) == ["success"]
    assert happened(world, Happening.JOB_LOST) == 0


def test_a_busy_runner_moves_before_its_host_is_taken_back() -> None:
    world = World()
    (job,) = started(world)
    source = host_of(world, job)
    world.cloud.take_back(source, 2 * MINUTE)
    world.until(world.is_quiet, 10 * MINUTE)
    world.check_nothing_is_left()
    assert [row.phase for row in world.store.migrations.rows.values()] == [MigrationPhase.FINISHED]
    assert host_of(world, job) != source
    assert len(world.github.jobs) == 1, "nothing was run twice"


def test_a_job_whose_host_dies_without_a_notice_is_run_again_after_its_lock() -> None:
    world = World()
    (job,) = started(world)
    died_at = world.clock.now()
    world.cloud.kill(host_of(world, job))
    world.until(lambda: _state(world, job) is JobState.LOST, MINUTE)
    world.until(lambda: len(world.github.jobs) == 2, 15 * MINUTE)
    assert world.clock.now() - died_at > 9 * MINUTE, "GitHub keeps the job until its lock has expired"
    world.until(world.is_quiet, 10 * MINUTE)
    world.check_nothing_is_left()
    row = world.store.jobs.get(job)
    assert row is not None
    assert (row.state, row.end, row.rerun) == (JobState.COMPLETED, JobEnd.LOST, Rerun.ASKED)
    assert world.github.conclusions(1) == ["success"]
    runner = world.store.runners.get(row.runner_id) if row.runner_id else None
    assert runner is not None
    assert runner.state is RunnerState.GONE


def test_a_machine_that_is_switched_off_is_given_up_at_once_and_ended() -> None:
    """The cloud still has it and bills it, but nothing runs there any more."""
    world = World()
    (job,) = started(world)
    host, silent_at = host_of(world, job), world.clock.now()
    world.cloud.switch_off(host)
    world.until(lambda: _state(world, job) is JobState.LOST, MINUTE)
    assert world.clock.now() - silent_at < MINUTE, "long before a host that may be cut off is given up"
    world.until(world.is_quiet, 20 * MINUTE)
    assert not world.cloud.is_alive(host)
    world.check_nothing_is_left()


def test_the_end_may_be_told_before_the_loss_is_noticed() -> None:
    """GitHub's word comes while the host is silent and the cloud has not said yet that it is gone."""
    world = World()
    (job,) = started(world)
    world.cloud.kill(host_of(world, job))
    world.clock.move(timedelta(minutes=11))  # and no worker has looked meanwhile
    world.github.pass_time()
    world.receive()
    world.look_at("job", str(job))
    assert [host.state for host in world.store.hosts.open()] == [HostState.READY]
    row = world.store.jobs.get(job)
    assert row is not None
    assert (row.end, row.rerun) == (JobEnd.LOST, Rerun.ASKED)
    world.until(world.is_quiet, 10 * MINUTE)
    assert happened(world, Happening.RERUN_ASKED) == 1


def test_hosts_that_nobody_hears_go_on_with_their_jobs() -> None:
    """The receiver was down for longer than a host may be silent: the cloud knows that its machines are well."""
    world = World(ready_hosts=2)
    world.hosts.job_takes = 5 * MINUTE
    (job,) = started(world)
    world.hosts.is_listener_down = True
    end = world.clock.now() + 3 * MINUTE
    world.until(lambda: world.clock.now() >= end, 4 * MINUTE)
    assert happened(world, Happening.HOST_LOST) == 0
    world.hosts.is_listener_down = False
    world.until(world.is_quiet, 10 * MINUTE)
    world.check_nothing_is_left()
    assert world.github.conclusions(1) == ["success"]
    assert len(world.github.jobs) == 1
    assert _state(world, job) is JobState.COMPLETED


def test_a_job_that_fails_by_itself_is_not_run_again() -> None:
    world = World()
    (job,) = started(world)
    remote = world.github.jobs[job]
    assert remote.runner is not None
    world.github.report(remote.runner.github_id, "failure")
    world.until(lambda: not world.store.runners.open() and not world.store.jobs.open(), 3 * MINUTE)
    assert len(world.github.jobs) == 1
    assert happened(world, Happening.RERUN_ASKED) == 0


def test_a_notice_buys_the_host_that_is_missing_and_the_runner_gets_there_in_time() -> None:
    world = World(hosts_max=1)
    (job,) = started(world)
    source = host_of(world, job)
    assert [host.id for host in world.store.hosts.open()] == [source]
    world.cloud.take_back(source, 2 * MINUTE)
    world.until(lambda: host_of(world, job) != source, 2 * MINUTE)
    world.until(world.is_quiet, 10 * MINUTE)
    assert len(world.github.jobs) == 1


def test_when_a_target_fails_another_attempt_is_made_while_there_is_time() -> None:
    world = World(ready_hosts=3)
    (job,) = started(world)
    source = host_of(world, job)
    world.until(lambda: sum(host.state is HostState.READY for host in world.store.hosts.open()) == 3, 5 * MINUTE)
    world.hosts.failures = 1.0
    world.cloud.take_back(source, 2 * MINUTE)
    world.until(lambda: happened(world, Happening.MIGRATION_ABORTED) >= 1, MINUTE)
    world.hosts.failures = 0.0
    world.until(lambda: host_of(world, job) != source, MINUTE)
    targets = [row.target_id for row in world.store.migrations.rows.values()]
    assert len(set(targets)) == 2, "the target that failed is not tried again at once"


def test_the_relay_follows_the_commit_and_is_asked_again_until_it_has() -> None:
    world = World(ready_hosts=2)
    (job,) = started(world)
    row = world.store.jobs.get(job)
    assert row is not None
    runner_id = row.runner_id
    assert runner_id is not None
    source = host_of(world, job)
    world.cloud.take_back(source, 2 * MINUTE)
    world.until(lambda: host_of(world, job) != source, 2 * MINUTE)
    world.tick()
    assert len(world.trouble.of("relay", "point")) == 3, "boot, before the pause, commit: no sweep needed"
    target = world.store.hosts.get(host_of(world, job))
    assert target is not None
    assert world.relay.table[runner_id].host_address == target.address
    assert happened(world, Happening.RELAY_POINTED) == 1


def test_several_guests_leave_one_host_side_by_side() -> None:
    world = World(ready_hosts=3)
    jobs = started(world, 2)
    world.until(lambda: sum(host.state is HostState.READY for host in world.store.hosts.open()) == 3, 5 * MINUTE)
    source = host_of(world, jobs[0])
    assert host_of(world, jobs[1]) == source, "runners are packed"
    world.cloud.take_back(source, MINUTE)
    world.until(lambda: source not in {host_of(world, job) for job in jobs}, MINUTE)
    world.until(world.is_quiet, 10 * MINUTE)
    assert len(world.github.jobs) == 2


def test_a_line_that_was_measured_is_divided_as_planned_and_every_decision_is_told() -> None:
    world = World(ready_hosts=3)
    world.hosts.job_takes = 10 * MINUTE
    jobs = started(world, 2)
    for shares in ({None}, {100 * USABLE / 2}):
        before = set(world.store.migrations.rows)
        world.until(lambda: sum(host.state is HostState.READY for host in world.store.hosts.open()) == 3, 5 * MINUTE)
        source = host_of(world, jobs[0])
        assert host_of(world, jobs[1]) == source, "runners are packed, the moved ones too"
        world.cloud.take_back(source, MINUTE)
        world.until(lambda: source not in {host_of(world, job) for job in jobs}, MINUTE)  # noqa: B023 called at once
        moves = [row for key, row in world.store.migrations.rows.items() if key not in before]
        assert {row.share_mib_s for row in moves} == shares
    told = [event for _, event in world.store.timeline() if event.happening is Happening.EVACUATION_DECIDED]
    assert [event.detail["decision"] for event in told] == ["Move"] * 4
    assert ["as assumed" in str(event.detail["because"]) for event in told] == [True, True, False, False]


def test_without_any_hint_and_without_most_webhooks_the_sweep_finds_everything() -> None:
    world = World(1, Faults(hints=1.0, deliveries=0.9))
    for run_id in (1, 2, 3):
        world.github.queue(run_id)
    world.until(world.is_quiet, timedelta(minutes=30))
    assert {world.github.conclusions(run_id)[0] for run_id in (1, 2, 3)} == {"success"}


def test_a_job_whose_labels_nobody_serves_is_told_why_and_costs_nothing() -> None:
    world = World()
    job = world.github.queue(1, ("gpu",))
    for _ in range(40):
        world.tick()
    row = world.store.jobs.get(job)
    assert row is not None
    assert row.unserved is not None
    assert "spot-runner" in row.unserved
    assert happened(world, Happening.JOB_UNSERVED) == 1
    assert not world.store.hosts.rows


def test_a_job_cancelled_while_it_waits_leaves_nothing_behind() -> None:
    world = World()
    job = world.github.queue(1)
    world.until(lambda: _state(world, job) is JobState.QUEUED, MINUTE)
    world.github.cancel(job)
    world.until(lambda: _state(world, job) is JobState.CANCELLED, MINUTE)
    world.until(world.is_given_back, 20 * MINUTE)
    world.check_nothing_is_left()


def test_a_sold_out_cloud_is_asked_again_until_it_sells() -> None:
    world = World()
    world.cloud.is_sold_out = True
    world.github.queue(1)
    for _ in range(400):
        world.tick()
    assert not world.cloud.alive()
    assert len(world.store.hosts.open()) == 1
    world.cloud.is_sold_out = False
    world.until(world.is_quiet, 10 * MINUTE)


def test_an_instance_that_nobody_asked_for_is_ended() -> None:
    world = World()
    leaked = HostId("spot-host-leaked")
    world.cloud.launch(leaked, HOST, {"token": "none"})
    world.until(lambda: not world.cloud.is_alive(leaked), MINUTE)


def test_ready_hosts_stay_ready_and_others_are_given_back() -> None:
    world = World(ready_hosts=1)
    world.until(lambda: len(world.cloud.alive()) == 1, 2 * MINUTE)
    started(world, 4)
    assert len(world.cloud.alive()) == 2
    world.until(lambda: world.is_quiet() and len(world.cloud.alive()) == 1, 30 * MINUTE)
    for _ in range(1200):
        world.tick()
    assert len(world.cloud.alive()) == 1


def test_no_attempt_is_asked_for_twice_when_several_jobs_of_a_run_are_lost() -> None:
    world = World()
    jobs = [world.github.queue(1) for _ in range(2)]
    world.until(lambda: all(_state(world, job) is JobState.RUNNING for job in jobs), 2 * MINUTE)
    assert host_of(world, jobs[0]) == host_of(world, jobs[1])
    world.cloud.kill(host_of(world, jobs[0]))
    world.until(lambda: world.github.attempt_of(1) == 2, 15 * MINUTE)
    world.until(world.is_quiet, 10 * MINUTE)
    assert world.github.attempt_of(1) == 2
    assert world.github.conclusions(1) == ["success", "success"]
    asked = [event for _, event in world.store.timeline() if event.happening is Happening.RERUN_ASKED]
    assert [event.detail for event in asked] == [{"attempt": 1}, {"attempt": 1}], "the second found it asked for"


def test_a_paused_guest_whose_source_is_gone_is_waited_for() -> None:
    world = World(ready_hosts=2)
    (job,) = started(world)
    source = host_of(world, job)
    world.hosts.lost_words = {Said.COMMITTED}
    world.cloud.take_back(source, MINUTE)
    world.until(lambda: happened(world, Happening.MIGRATION_PAUSED) == 1, MINUTE)
    world.until(lambda: happened(world, Happening.HOST_TERMINATED) == 1, 2 * MINUTE)
    for _ in range(60):
        world.tick()
    assert [row.phase for row in world.store.migrations.rows.values()] == [MigrationPhase.PAUSED]
    assert _state(world, job) is JobState.RUNNING, "the target holds the guest, so nothing is lost"
    world.hosts.lost_words = set()
    world.until(world.is_quiet, 5 * MINUTE)
    assert len(world.github.jobs) == 1


def test_a_job_that_is_cancelled_while_it_moves_takes_its_migration_with_it() -> None:
    world = World(ready_hosts=2)
    (job,) = started(world)
    world.cloud.take_back(host_of(world, job), 2 * MINUTE)
    world.until(lambda: happened(world, Happening.MIGRATION_COPYING) == 1, MINUTE)
    world.github.cancel(job)
    world.until(world.is_quiet, 5 * MINUTE)
    assert [row.phase for row in world.store.migrations.rows.values()] == [MigrationPhase.ABORTED]
    world.check_nothing_is_left()


@pytest.mark.parametrize("tries", [1, 2])
def test_a_worker_that_dies_between_registering_and_starting_leaves_no_registration(tries: int) -> None:
    """The number of the last registration was never written down; on the second try the row still has an older one."""
    world = World()
    lost = world.trouble.lost_calls if tries == 2 else world.trouble.lost_answers
    lost["host" if tries == 2 else "github", "start_runner" if tries == 2 else "register"] = WorkerDied()
    world.github.queue(1)
    world.until(lambda: bool(world.trouble.of("github", "register")), 2 * MINUTE)
    if tries == 2:
        world.trouble.lost_answers["github", "register"] = Unreachable("lost")
        world.until(lambda: len(world.trouble.of("github", "register")) == 2, MINUTE)
    (runner,) = world.store.runners.open()
    assert runner.state is (RunnerState.BOOTING if tries == 2 else RunnerState.REQUESTED)
    assert runner.host_id is not None
    world.cloud.take_back(runner.host_id, timedelta(seconds=20))
    world.until(lambda: happened(world, Happening.RUNNER_GONE) == 1, MINUTE)
    assert runner.id not in {one.name for one in world.github.runners.values()}
    world.until(world.is_quiet, 5 * MINUTE)


def test_a_guest_that_may_have_a_job_is_moved_when_github_cannot_say() -> None:
    world = World(ready_hosts=2)
    world.github.loss = 1.0
    job = world.github.queue(1)
    world.until(lambda: world.github.jobs[job].status == "in_progress", 2 * MINUTE)
    world.trouble.away = {"github"}
    source = host_of(world, job)
    world.cloud.take_back(source, MINUTE)
    world.until(lambda: host_of(world, job) != source, MINUTE)
    world.trouble.away = set()
    world.until(world.is_quiet, 10 * MINUTE)
    assert len(world.github.jobs) == 1


ROUGH = Faults(unreachable=0.05, death=0.01, hints=0.2, deliveries=0.1, hosts=0.05)
SEEDS = 20


@pytest.mark.parametrize("seed", range(SEEDS))
def test_whatever_goes_wrong_every_run_succeeds_in_the_end(seed: int) -> None:
    world = World(seed, ROUGH)
    for run_id in range(1, world.random.randint(2, 6)):
        world.github.queue(run_id)
    for _ in range(world.random.randint(3, 8)):
        span = world.random.randint(1, 60)
        for _ in range(span):
            world.tick()
        strike(world)
    world.until(world.is_quiet, timedelta(hours=1))
    world.calm_down()
    world.until(world.is_given_back, timedelta(hours=1))
    world.check_nothing_is_left()


def strike(world: World) -> None:
    """Take a host back, with or without a word."""
    alive = world.cloud.alive()
    if not alive:
        return
    victim = world.random.choice(alive)
    if world.random.random() < 0.3:
        world.cloud.kill(victim)
    else:
        world.cloud.take_back(victim, timedelta(seconds=world.random.choice([5, 30, 60, 120])))
