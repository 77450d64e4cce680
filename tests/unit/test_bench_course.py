"""What the benchmark says of many moves follows from what was measured."""

from __future__ import annotations

from collections import Counter

from tests.bench.course import Memory, Sample, consecutive, felt, sampled, spread, swollen
from tests.e2e.belongings import grown
from workers.rehearsal.gaps import Beat
from workers.rehearsal.pulse import Stall

SAID = {
    "stopped_at": 100.0,
    "completed_at": 100.03,
    "held_at": 100.04,
    "commit_read_at": 100.05,
    "resumed_at": 100.07,
    "total_s": 2.0,
    "memory_mib_sent": 90.0,
}


def sample(stopped_ms: float, stopped_at: float = 100.0) -> Sample:
    return Sample(stopped_at, stopped_ms, 5.0, stopped_ms - 5.0, 2.0, 90.0)


def test_a_move_is_read_off_what_both_sides_have_said() -> None:
    read = sampled(SAID)
    assert round(read.stopped_ms, 3) == 70
    assert round(read.commit_ms, 3) == 10, "it begins when both monitors have everything"
    assert round(read.net_ms, 3) == 60
    assert round(read.total_s, 3) == 2.04


def test_the_guest_feels_its_longest_gap_and_what_its_clock_lost() -> None:
    beat = Beat(0.0, 0.1, [5.0] * 990 + [30.0] + [5.0] * 300, [(98.5, 0.0), (99.5, 60.0)])
    told = felt(sample(60.0, stopped_at=99.0), beat, [Stall(0, 99.5, 0.2), Stall(0, 300.0, 9.0)])
    assert (told.guest_gap_ms, told.clock_lost_ms) == (90.0, 60.0)
    assert told.stalled_ms == 200.0
    assert told.felt_after_s == 0.1


def test_the_twentieth_pause_is_held_against_the_median_of_its_twenty() -> None:
    pauses = [40.0] * 19 + [80.0] + [50.0] * 20
    said = consecutive([sample(pause) for pause in pauses])
    assert said is not None
    assert (said["median_ms"], said["twentieth_ms"], said["ratio"]) == (40.0, 80.0, 2.0)
    assert said["last_twenty_median_ms"] == 50.0
    assert consecutive([sample(40.0)] * 19) is None


def test_percentiles_are_of_each_figure() -> None:
    spread_of = spread([sample(float(pause)) for pause in range(1, 101)])
    assert spread_of["stopped_ms"] == {"p50": 50.0, "p95": 95.0, "p99": 99.0, "max": 100.0}
    assert spread_of["guest_gap_ms"]["max"] is None


def test_memory_grows_only_by_more_than_allocators_keep() -> None:
    before = Memory(daemons_mib=300.0, monitor_mib=200.0, guest_mib=400.0)
    assert swollen(before, Memory(315.0, 215.0, 900.0)) == []
    assert swollen(before, Memory(340.0, 215.0, 400.0)) == ["memory of the daemons: 300 MiB became 340 MiB"]
    assert swollen(Memory(10.0, 10.0, 0.0), Memory(20.0, 10.0, 0.0)) == []


def test_what_there_is_more_of_is_named_and_what_is_gone_is_not() -> None:
    before = {"a: files": Counter({"disk": 1, "log": 1}), "daemons: open files": Counter({"pipe": 2})}
    after = {"a: files": Counter({"disk": 1, "rest": 1}), "daemons: open files": Counter({"pipe": 4})}
    assert grown(before, after) == ["a: files: rest", "daemons: open files: pipe (2 times)"]
    assert grown(before, before) == []
