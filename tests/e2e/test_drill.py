"""A short drill, as a user starts it: real hosts are taken away from real jobs, with and without more going wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.drill.outcomes import OUTCOMES
from workers.rehearsal import remains
from workers.rehearsal.drill.interruption import Outcome
from workers.rehearsal.places import Places
from workers.rehearsal.remains import Journal

pytestmark = [pytest.mark.guest, pytest.mark.root, pytest.mark.timeout(900)]

PROGRAM = Path(sys.executable).parent / "spot-runner"
LIMIT_S = 800.0
# Longer than a move takes, even one that is tried again on a slow machine: what is not needed of it costs nothing.
NOTICE_S = "90"
# Each comes once, in phases that last long enough to be seen.
FAULTS = (
    "source_daemon_killed@committed",
    "target_daemon_killed@copying",
    "target_monitor_killed@copying",
    "control_killed@copying",
    "redis_flushed@copying",
    "relay_restarted@copying",
    "hosts_reset@copying",
    "target_disk_full@copying",
    "jobs_end@copying",
    "no_target",
)
COUNT = len(FAULTS)
# A phase may be over before anybody has seen it, where this machine itself stands still for seconds.
MISSED_MAX = 2


@pytest.fixture
def places() -> Iterator[Places]:
    places = Places(f"d{os.getpid() % 1000000}")
    yield places
    with remains.alone(places):
        remains.sweep(places)
        shutil.rmtree(places.logs, ignore_errors=True)


def test_jobs_come_through_what_goes_wrong_as_it_is_written_down(places: Places, tmp_path: Path) -> None:
    report, output = tmp_path / "report.json", tmp_path / "drill.log"
    options = ["--count", str(COUNT), "--notice-seconds", NOTICE_S, "--faults", ",".join(FAULTS), "--json", str(report)]
    with output.open("wb") as file:
        command: list[str | Path] = [PROGRAM, "drill", "--name", places.name, *options]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, timeout=LIMIT_S, check=False
        )
    said = output.read_text(errors="replace")
    assert done.returncode == 0, said
    told = json.loads(report.read_text())
    assert (told["count"], told["lost"]) == (COUNT, 0), said
    interruptions = told["parts"]["interruptions"]
    for one in interruptions:
        assert Outcome(one["outcome"]) in OUTCOMES[one["fault"].partition("@")[0]].allowed, (one, said)
    missed = [one for one in interruptions if not one["is_planted"]]
    assert len(missed) <= MISSED_MAX, missed
    assert (told["double_runs"], told["leftovers"]) == (0, []), told
    assert told["stopped_ms"]["max"] is not None, "something was moved"
    assert remains.leftovers(places, Journal(places.journal).remnants()) == ()
