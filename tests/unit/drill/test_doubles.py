"""A guest that runs in two places is seen, one that has moved is not suspected."""

from __future__ import annotations

import itertools
import threading

import pytest

from workers.domain.errors import Bug, Unreachable
from workers.rehearsal.drill.doubles import ADVANCED_NS, Doubles, Sample, watched_copies

A, B = ("spot-host-a", 100), ("spot-host-b", 200)
STEP = 2 * ADVANCED_NS
LOOKS = 5
LIMIT_S = 10.0


def watched(*steps: dict[tuple[str, int], int]) -> list[str]:
    """Each step says by how much each place has run since the one before."""
    doubles, run = Doubles(), dict.fromkeys([place for step in steps for place in step], 0)
    for step in steps:
        for place, by in step.items():
            run[place] += by
        doubles.note({"spot-runner-1": {place: run[place] for place in step}})
    return doubles.found


def test_a_guest_that_moves_is_not_suspected() -> None:
    assert not watched({A: STEP}, {A: STEP}, {A: STEP, B: 0}, {A: STEP, B: STEP}, {A: 0, B: STEP}, {B: STEP})


def test_a_source_that_runs_after_the_target_has_run_is_found() -> None:
    found = watched({A: 0}, {A: STEP}, {A: STEP, B: 0}, {A: 0, B: STEP}, {A: STEP, B: STEP})
    assert found == ["spot-runner-1 ran on spot-host-a (process 100) after it had run elsewhere"]


def test_both_running_on_is_found() -> None:
    assert watched({A: 0, B: 0}, {A: STEP, B: 0}, {A: STEP, B: STEP}, {A: STEP, B: STEP})


def test_a_source_that_takes_its_guest_back_before_the_target_ran_is_not_suspected() -> None:
    assert not watched({A: 0}, {A: STEP, B: 0}, {A: 0, B: ADVANCED_NS // 10}, {A: STEP, B: 0}, {A: STEP})


def test_a_guest_may_come_back_in_a_new_process() -> None:
    again = ("spot-host-a", 300)
    there: list[dict[tuple[str, int], int]] = [{A: 0}, {A: STEP, B: 0}, {A: 0, B: STEP}]
    assert not watched(*there, {B: STEP, again: 0}, {B: STEP, again: STEP}, {B: 0, again: STEP})


def test_whoever_watches_sees_what_runs_twice() -> None:
    looks, enough = itertools.count(), threading.Event()

    def look() -> Sample:
        if (ran := next(looks)) == LOOKS:
            enough.set()
        return {"spot-runner-1": {A: ran * STEP, B: ran * STEP}}

    with watched_copies(look) as doubles:
        assert enough.wait(LIMIT_S)
    assert doubles.found


def test_a_watch_that_died_is_an_error_and_no_silence() -> None:
    has_looked = threading.Event()

    def look() -> Sample:
        has_looked.set()
        raise FileNotFoundError("the group is gone")

    with pytest.raises(Bug, match=r"nobody watched.*the group is gone"), watched_copies(look):
        assert has_looked.wait(LIMIT_S)


def test_what_the_block_itself_failed_with_is_not_hidden() -> None:
    has_looked = threading.Event()

    def look() -> Sample:
        has_looked.set()
        raise FileNotFoundError("the group is gone")

    def fall() -> None:
        assert has_looked.wait(LIMIT_S)
        raise Unreachable("the stage fell")

    with pytest.raises(Unreachable, match="the stage fell"), watched_copies(look):
        fall()
