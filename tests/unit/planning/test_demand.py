"""Demand, not orders: never more runners than jobs that wait, never fewer for longer than it takes to make them."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.unit.planning.rows import MINUTE, NOW, SMALL, a_host, a_job, a_runner
from workers.domain.breaker import Breaker
from workers.domain.host import HostState
from workers.domain.job import Job, JobState
from workers.domain.labels import Interrupt
from workers.domain.names import HostId, JobId, PackageDigest, RunnerId
from workers.domain.overlay import GuestNetwork
from workers.domain.pools import Terms
from workers.domain.runner import Level, Runner, RunnerState
from workers.planning.demand import Balance, balance, demand_of, kind_of, supply_of
from workers.planning.fleet import Fleet
from workers.planning.placement import UNTAKEN, runner_for

SUPPLY = frozenset({RunnerState.IDLE, RunnerState.BOOTING, RunnerState.REQUESTED})
LEAVING = a_host("z", deadline_at=NOW + MINUTE)
HOSTS = (a_host(), LEAVING)
LABELS = [("spot-runner",), ("Spot-Runner", "cpu=4"), ("spot-runner/run=7",)]


def terms(pool: str = "ci") -> Terms:
    return Terms(pool, PackageDigest("sha256:00"), "debian-12", SMALL, GuestNetwork.NAT, Interrupt.MOVE)


WAITING = replace(a_job(1), terms=terms())


def spare(number: int = 9, state: RunnerState = RunnerState.IDLE, job: int = 99) -> Runner:
    return replace(a_runner(f"r{number}", state=state, job=job), pool="ci")


jobs_in_any_state = st.builds(
    lambda state, labels, pool, repository, minutes, runner: replace(
        a_job(1, state, runner),
        labels=labels,
        terms=terms(pool) if pool else None,
        repository=repository,
        queued_at=NOW + minutes * MINUTE,
    ),
    st.sampled_from(JobState),
    st.sampled_from(LABELS),
    st.sampled_from(["ci", "ci", "strangers", None]),
    st.sampled_from(["octo/hello", "octo/other"]),
    st.integers(0, 2),
    st.none() | st.sampled_from([f"r{number}" for number in range(8)]),
)
runners_in_any_state = st.builds(
    lambda state, labels, pool, repository, job, host: replace(
        a_runner("r", host, state, job), labels=labels, pool=pool, repository=repository
    ),
    st.sampled_from(RunnerState),
    st.sampled_from(LABELS),
    st.sampled_from(["ci", "ci", "strangers", ""]),
    st.sampled_from(["octo/hello", "Octo/Hello", "octo/other"]),
    st.integers(1, 9),
    st.sampled_from(["a", "a", "a", "z", "nowhere"]),
)


def numbered(jobs: list[Job]) -> list[Job]:
    """Give each its own number, and let no two count on one runner: whoever writes rows sees to that."""
    taken: set[RunnerId | None] = set()
    rows = []
    for number, job in enumerate(jobs, start=1):
        runner = None if job.runner_id in taken else job.runner_id
        taken.add(runner)
        rows.append(replace(job, id=JobId(number), runner_id=runner))
    return rows


def named(runners: list[Runner]) -> tuple[Runner, ...]:
    return tuple(replace(runner, id=RunnerId(f"r{number}")) for number, runner in enumerate(runners))


all_jobs = st.lists(jobs_in_any_state, max_size=8).map(numbered)
all_runners = st.lists(runners_in_any_state, max_size=8).map(named)


def made(found: Balance) -> tuple[Runner, ...]:
    """Make the runners that are missing, as the reconciler does."""
    rows = []
    for job in found.missing:
        assert job.terms is not None
        runner = runner_for(job, job.terms, RunnerId(f"for-{job.id}"), 0, HostId("a"), NOW)
        rows.append(runner)
    return tuple(rows)


def is_demand(job: Job) -> bool:
    return job.state in {JobState.QUEUED, JobState.PLACED} and job.terms is not None


@given(all_jobs, all_runners)
def test_everybody_who_waits_counts_on_one_runner_or_gets_one_and_nobody_shares_one(
    jobs: list[Job], runners: tuple[Runner, ...]
) -> None:
    found = balance(jobs, Fleet(HOSTS, runners), {}, NOW)
    waiting = {job.id for job in jobs if is_demand(job)}
    assert set(found.counted) | {job.id for job in found.missing} == waiting
    assert len(found.counted) + len(found.missing) == len(waiting)
    assert max(Counter(found.counted.values()).values(), default=1) == 1
    free = {one.id for one in runners if one.state in SUPPLY and one.host_id == "a"}
    assert found.spare == free - set(found.counted.values())


@given(all_jobs, all_runners)
@example(
    # The first job was given a runner that looks as if it were the second one's.
    [
        replace(WAITING, state=JobState.PLACED, runner_id=RunnerId("r0")),
        replace(WAITING, id=JobId(2), labels=LABELS[1]),
    ],
    (replace(spare(0, RunnerState.BUSY, job=1), labels=LABELS[1]),),
)
def test_never_more_runners_than_demand_and_never_fewer_once_they_are_made(
    jobs: list[Job], runners: tuple[Runner, ...]
) -> None:
    found = balance(jobs, Fleet(HOSTS, runners), {}, NOW)
    by_id, by_job = {runner.id: runner for runner in runners}, {job.id: job for job in jobs}
    wanted = Counter(demand_of(job) for job in jobs if is_demand(job))
    # A runner that a job counts on is there for this job, whatever else it could have served.
    supply = Counter(supply_of(by_id[key]) for key in found.spare)
    supply.update(demand_of(by_job[key]) for key in found.counted)
    for demand, count in Counter(demand_of(job) for job in found.missing).items():
        assert supply[demand] + count <= wanted[demand], "a runner too many"
    for job in found.missing:
        assert not any(supply_of(by_id[key]).includes(demand_of(job)) for key in found.spare), "one was left over"
    after = balance(jobs, Fleet(HOSTS, (*runners, *made(found))), {}, NOW)
    assert not after.missing
    assert found.counted.items() <= after.counted.items(), "what belonged together still does"
    assert after.spare == found.spare


@given(all_jobs, all_runners, st.randoms())
def test_every_worker_comes_to_the_same_plan(
    jobs: list[Job], runners: tuple[Runner, ...], chance: random.Random
) -> None:
    others, fleet = list(jobs), list(runners)
    chance.shuffle(others)
    chance.shuffle(fleet)
    assert balance(others, Fleet(HOSTS, tuple(fleet)), {}, NOW) == balance(jobs, Fleet(HOSTS, runners), {}, NOW)


@given(all_jobs, all_runners)
def test_only_a_runner_of_its_own_pool_is_counted_on_anew(jobs: list[Job], runners: tuple[Runner, ...]) -> None:
    found = balance(jobs, Fleet(HOSTS, runners), {}, NOW)
    by_job, by_id = {job.id: job for job in jobs}, {runner.id: runner for runner in runners}
    for job_id, runner_id in found.counted.items():
        job, runner = by_job[job_id], by_id[runner_id]
        if job.state is JobState.QUEUED:
            assert job.terms is not None
            assert (runner.pool, runner.repository.lower()) == (job.terms.pool, job.repository)
            assert {label.lower() for label in job.labels} <= {label.lower() for label in runner.labels}


def test_a_job_that_waits_for_its_environment_is_no_demand_and_its_runner_is_spare() -> None:
    waiting = replace(WAITING, state=JobState.WAITING)
    found = balance([waiting], Fleet(HOSTS, (spare(job=1),)), {}, NOW)
    assert found == Balance(spare=frozenset({RunnerId("r9")}))


@pytest.mark.parametrize("end", [JobState.RUNNING, JobState.LOST, JobState.COMPLETED, JobState.CANCELLED])
def test_a_runner_whose_job_runs_elsewhere_or_is_over_serves_the_next_one(end: JobState) -> None:
    other = replace(a_job(2, end, "other"), terms=terms())
    assert balance([WAITING, other], Fleet(HOSTS, (spare(job=2),)), {}, NOW).counted == {1: "r9"}


def test_a_runner_that_another_job_counts_on_is_left_to_it() -> None:
    other = replace(a_job(2, JobState.PLACED, "r9"), terms=terms())
    found = balance([WAITING, other], Fleet(HOSTS, (spare(job=2),)), {}, NOW)
    assert (found.counted, [job.id for job in found.missing]) == ({2: "r9"}, [1])


def test_whoever_was_promised_a_runner_keeps_it_although_an_older_job_waits() -> None:
    younger = replace(a_job(2), terms=terms(), queued_at=NOW + MINUTE)
    found = balance([WAITING, younger], Fleet(HOSTS, (spare(job=2),)), {}, NOW)
    assert (found.counted, [job.id for job in found.missing]) == ({2: "r9"}, [1])


def test_the_runner_that_is_furthest_comes_first_and_the_oldest_job_gets_it() -> None:
    younger = replace(a_job(2), terms=terms(), queued_at=NOW + MINUTE)
    runners = tuple(spare(number, state) for number, state in enumerate(sorted(UNTAKEN, reverse=True)))
    idle = next(one.id for one in runners if one.state is RunnerState.IDLE)
    booting = next(one.id for one in runners if one.state is RunnerState.BOOTING)
    assert balance([younger, WAITING], Fleet(HOSTS, runners), {}, NOW).counted == {1: idle, 2: booting}


def test_a_runner_with_more_labels_serves_whom_its_own_demand_does_not_need() -> None:
    larger = replace(spare(), labels=("spot-runner", "cpu=4"))
    its_own = replace(a_job(2), labels=("cpu=4", "spot-runner"), terms=terms(), queued_at=NOW + MINUTE)
    assert balance([WAITING], Fleet(HOSTS, (larger,)), {}, NOW).counted == {1: "r9"}
    found = balance([WAITING, its_own], Fleet(HOSTS, (larger,)), {}, NOW)
    assert (found.counted, [job.id for job in found.missing]) == ({2: "r9"}, [1])


def test_a_runner_on_a_host_that_leaves_or_is_lost_is_no_supply() -> None:
    for host in (LEAVING, a_host("a", HostState.LOST)):
        found = balance([WAITING], Fleet((host,), (replace(spare(), host_id=host.id),)), {}, NOW)
        assert [job.id for job in found.missing] == [1]


# ---------------------------------------------------------------- what was in vain

TRIPPED = Breaker(kind_of(WAITING), 3, 3, NOW, NOW + 10 * MINUTE, "they got no job")
JOBS = [replace(a_job(number), terms=terms()) for number in (1, 2, 3)]


def test_while_a_breaker_is_open_nothing_of_its_kind_is_made() -> None:
    other = replace(a_job(4), terms=terms("strangers"))
    found = balance([*JOBS, other], Fleet(HOSTS, ()), {TRIPPED.id: TRIPPED}, NOW)
    assert ([job.id for job in found.missing], set(found.held)) == ([4], {1, 2, 3})


def test_once_it_is_time_one_probe_is_made_and_no_second_beside_it() -> None:
    now, tripped = NOW + 10 * MINUTE, {TRIPPED.id: TRIPPED}
    found = balance(JOBS, Fleet(HOSTS, ()), tripped, now)
    assert ([job.id for job in found.missing], set(found.held)) == ([1], {2, 3})
    for state in (*SUPPLY, RunnerState.RETIRING):
        probe = replace(made(found)[0], state=state)
        assert not balance(JOBS, Fleet(HOSTS, (probe,)), tripped, now).missing, state


def test_whoever_has_a_runner_already_counts_on_it_though_the_breaker_is_open() -> None:
    found = balance(JOBS, Fleet(HOSTS, (spare(),)), {TRIPPED.id: TRIPPED}, NOW)
    assert (found.counted, set(found.held)) == ({1: "r9"}, {2, 3})


def test_a_kind_is_the_same_for_every_run_and_another_for_every_package_and_pool() -> None:
    def kind(*labels: str, pool: str = "ci", package: str = "sha256:00") -> str:
        return kind_of(replace(WAITING, labels=labels, terms=replace(terms(pool), package=PackageDigest(package))))

    assert kind("spot-runner/cpu=4/run=7") == kind("Spot-Runner/run=8-2/cpu=4") == kind("spot-runner/cpu=4")
    assert kind("spot-runner", "run=7") == kind("spot-runner", "RUN=8") == kind("spot-runner")
    others = [kind("spot-runner/cpu=4"), kind("spot-runner", pool="b"), kind("spot-runner", package="sha256:01")]
    assert len({kind("spot-runner"), *others}) == 4
    assert kind_of(replace(spare(), labels=("SPOT-runner",))) == kind("spot-runner")


# ---------------------------------------------------------------- runners of a whole organization


def shared_terms(pool: str = "ci", group_id: int = 7) -> Terms:
    return replace(terms(pool), level=Level.ORGANIZATION, group_id=group_id)


SHARED = replace(spare(), level=Level.ORGANIZATION, group_id=7, repository="octo/other")


def test_a_runner_of_an_organization_is_for_the_jobs_of_any_repository_of_it_in_its_pool() -> None:
    job = replace(WAITING, terms=shared_terms(), repository="Octo/Hello")
    assert balance([job], Fleet(HOSTS, (SHARED,)), {}, NOW).counted == {job.id: SHARED.id}
    assert supply_of(runner_for(job, shared_terms(), RunnerId("n"), 1, HostId("a"), NOW)) == demand_of(job)


@pytest.mark.parametrize(
    "job",
    [
        replace(WAITING, terms=shared_terms(), repository="hexa/hello"),
        replace(WAITING, terms=shared_terms(), repository="octo-org/hello"),
        replace(WAITING, terms=shared_terms("strangers")),
        replace(WAITING, terms=shared_terms(group_id=8)),
        replace(WAITING, terms=terms(), repository="octo/other"),
    ],
    ids=["organization", "longer name", "pool", "group", "of the repository alone"],
)
def test_it_is_for_nobody_else(job: Job) -> None:
    found = balance([job], Fleet(HOSTS, (SHARED,)), {}, NOW)
    assert not found.counted
    assert found.spare == {SHARED.id}
    assert found.missing == (job,)


@pytest.mark.parametrize(("job", "runner"), [(WAITING, spare()), (replace(WAITING, terms=shared_terms()), SHARED)])
def test_whichever_app_told_of_a_job_a_runner_that_another_one_registered_is_for_it(job: Job, runner: Runner) -> None:
    other = replace(job, installation_id=2)
    assert balance([other], Fleet(HOSTS, (runner,)), {}, NOW).counted == {job.id: runner.id}
    assert kind_of(other) == kind_of(job)


def test_a_runner_of_a_repository_is_for_no_job_that_is_to_get_one_of_the_organization() -> None:
    job = replace(WAITING, terms=shared_terms(group_id=1))
    assert balance([job], Fleet(HOSTS, (spare(),)), {}, NOW).missing == (job,)


def test_breakers_of_an_organization_s_groups_and_of_its_repositories_are_told_apart() -> None:
    alike = [spare(), SHARED, replace(SHARED, group_id=8), replace(SHARED, group_id=1)]
    assert len({kind_of(one) for one in alike}) == len(alike)
    assert kind_of(replace(SHARED, repository="octo/third")) == kind_of(SHARED)
