"""The demo itself, as a user starts it: real control plane, real hosts, real microVMs, a real end of a host."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from workers.rehearsal import remains
from workers.rehearsal.places import Places
from workers.rehearsal.remains import Journal, wait_until

pytestmark = [pytest.mark.guest, pytest.mark.root, pytest.mark.timeout(900)]

PROGRAM = Path(sys.executable).parent / "spot-runner"
UP = "are up"
# Some of the demo's, enough for a move in the middle of them.
FEWER = "test_hashlib test_queue test_shutil test_gzip"
# A cold boot and the start of some twenty Python programs, on processors that others may be using too.
UP_LIMIT_S = 300.0
STORY_LIMIT_S = 800.0
END_LIMIT_S = 60.0


class Demo:
    """One `spot-runner demo`, with its output in a file."""

    def __init__(self, places: Places, output: Path, *options: str) -> None:
        self.output = output
        with output.open("wb") as file:
            self.child = subprocess.Popen(
                [PROGRAM, "demo", "--name", places.name, "--no-cold-boot", *options],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        return self.output.read_text(errors="replace")

    def wait_up(self) -> None:
        assert wait_until(lambda: UP in self.said or self.child.poll() is not None, UP_LIMIT_S), self.said
        assert self.child.poll() is None, self.said

    def end(self) -> None:
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
            self.child.wait(END_LIMIT_S)


@pytest.fixture
def places() -> Iterator[Places]:
    places = Places(f"e{os.getpid() % 1000000}")
    yield places
    with remains.alone(places):
        remains.sweep(places)
        shutil.rmtree(places.logs, ignore_errors=True)


def test_a_job_survives_the_loss_of_its_host_even_on_the_remains_of_a_killed_run(
    places: Places, tmp_path: Path
) -> None:
    killed = Demo(places, tmp_path / "killed.log")
    killed.wait_up()
    left = Journal(places.journal).remnants()
    killed.child.kill()
    killed.child.wait(END_LIMIT_S)
    assert remains.leftovers(places, left), "a killed run leaves something, or the next one has nothing to sweep"

    options = ("--json", str(tmp_path / "report.json"), "--notice-seconds", "60", "--tests", FEWER)
    demo = Demo(places, tmp_path / "demo.log", *options)
    try:
        status = demo.child.wait(STORY_LIMIT_S)
    finally:
        demo.end()
    assert status == 0, demo.said
    check_survived(json.loads((tmp_path / "report.json").read_text()))
    assert not [
        one for one in left if one.kind is remains.Kind.PROGRAM and remains.start_time(int(one.name)) == one.started
    ]
    assert remains.leftovers(places, left) == ()


def check_survived(report: dict[str, Any]) -> None:
    assert (report["verdict"], report["leftovers"]) == ("survived", [])
    (job,) = report["jobs"]
    assert (job["conclusion"], job["steps_run"], job["steps_rerun"], job["disk_sha256_ok"]) == ("success", 5, 0, True)
    assert job["connection"]["survived"]
    assert job["connection"]["lost_messages"] == 0
    (move,) = job["migrations"]
    assert move["source"] != move["target"]
    assert move.pop("hold_broken_s") is None
    assert 0 < move["commit_ms"] < move["stopped_ms"]
    assert all(value is not None for value in (*move.values(), *job["stages_s"].values())), report
    stages = [job["stages_s"][name] for name in ("queued", "placed", "restored", "registered", "started")]
    assert stages == sorted(stages)


def test_a_job_moves_from_aws_to_hetzner_and_says_what_it_cost(places: Places, tmp_path: Path) -> None:
    demo = Demo(places, tmp_path / "demo.log", "clouds", "--json", str(tmp_path / "report.json"), "--tests", FEWER)
    try:
        status = demo.child.wait(STORY_LIMIT_S)
    finally:
        demo.end()
    assert status == 0, demo.said
    report = json.loads((tmp_path / "report.json").read_text())
    check_survived(report)
    (move,) = report["jobs"][0]["migrations"]
    clouds = report["clouds"]
    source, target = (clouds["hosts"][move[side]] for side in ("source", "target"))
    assert [(one["cloud"], one["terms"]) for one in (source, target)] == [("aws", "spot"), ("hetzner", "on-demand")]
    assert len(clouds["refused"]) == 2
    assert all("InsufficientInstanceCapacity" in one for one in clouds["refused"])
    assert clouds["events_taken"] == 1
    assert clouds["notices"], "whichever way was first"
    job = clouds["job"]
    assert job["on"] == [move["source"], move["target"]]
    assert 0 < job["usd"] < job["on_demand_usd"] < job["github_usd"]
    stages = list(clouds["since_notice_s"].values())
    assert len(stages) == 9
    assert stages == sorted(stages)
    assert clouds["since_notice_s"]["committed"] < 120


def test_ctrl_c_ends_everything(places: Places, tmp_path: Path) -> None:
    demo = Demo(places, tmp_path / "demo.log")
    demo.wait_up()
    left = Journal(places.journal).remnants()
    demo.child.send_signal(signal.SIGINT)
    assert demo.child.wait(END_LIMIT_S) == 130, demo.said
    assert "left behind: nothing" in demo.said
    assert remains.leftovers(places, left) == ()


def test_two_rehearsals_of_one_name_do_not_meet(places: Places, tmp_path: Path) -> None:
    with remains.alone(places):
        second = Demo(places, tmp_path / "second.log")
        assert second.child.wait(END_LIMIT_S) == 2
    (line,) = second.said.splitlines()
    assert "is running already" in line
