"""What is to be said beside commits: once, by one worker at a time, and not forgotten, on every store."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

from tests.contract.store_rows import ManualClock, WholeStore, a_job
from workers.domain.names import JobId
from workers.domain.remark import Remark, Verdict

MINUTE = timedelta(minutes=1)
SAID = Remark("k1", 11, "octo/hello", "c" * 40, "spot-runner", Verdict.NEUTRAL, "Lost — “ö”", "It was **lost**.")


def test_a_remark_is_owed_until_it_is_settled(store: WholeStore) -> None:
    store.owe(SAID)
    assert store.owed() == ["k1"]
    assert store.take_remark("k1", MINUTE) == SAID
    store.settle_remark(SAID)
    assert store.owed() == []
    assert store.take_remark("k1", MINUTE) is None


def test_what_was_said_is_not_owed_again_but_other_words_are(store: WholeStore) -> None:
    store.owe(SAID)
    store.settle_remark(SAID)
    store.owe(SAID)
    assert store.owed() == []
    other = replace(SAID, title="Given up", verdict=Verdict.ACTION_REQUIRED)
    store.owe(other)
    assert store.take_remark("k1", MINUTE) == other


def test_one_worker_has_it_for_a_while_and_then_it_is_due_again(store: WholeStore, clock: ManualClock) -> None:
    store.owe(SAID)
    assert store.take_remark("k1", MINUTE) == SAID
    assert store.owed() == []
    assert store.take_remark("k1", MINUTE) is None
    clock.move(MINUTE)
    assert store.owed() == ["k1"]
    assert store.take_remark("k1", MINUTE) == SAID


def test_of_many_workers_one_gets_it(store: WholeStore) -> None:
    store.owe(SAID)
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda _: store.take_remark("k1", MINUTE), range(8)))
    assert [one for one in taken if one is not None] == [SAID]


def test_words_that_changed_while_the_former_were_said_are_still_owed(store: WholeStore, clock: ManualClock) -> None:
    store.owe(SAID)
    store.take_remark("k1", MINUTE)
    other = replace(SAID, summary="It is run again.")
    store.owe(other)
    store.settle_remark(SAID)
    clock.move(MINUTE)
    assert store.take_remark("k1", MINUTE) == other


def test_a_remark_that_nobody_owes_is_not_taken(store: WholeStore) -> None:
    assert store.take_remark("k1", MINUTE) is None
    store.settle_remark(SAID)
    assert store.owed() == []


def test_the_jobs_of_a_run_are_those_of_all_its_attempts(store: WholeStore) -> None:
    first = a_job(1)
    again = replace(a_job(2), run_attempt=2)
    for job in (again, first, replace(a_job(3), run_id=4), replace(a_job(4), repository="octo/other")):
        store.jobs.add(job)
    assert [job.id for job in store.jobs_of_run("octo/hello", first.run_id)] == [first.id, again.id]
    assert store.jobs_of_run("octo/hello", JobId(5)) == []
