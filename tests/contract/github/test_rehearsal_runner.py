"""The rehearsal runner against the simulated GitHub, both as real processes."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.contract.github.places import Json, Place, rehearsal_runner, until
from tests.contract.github.proxy import Wire, faulty_wire

LABELS = ["spot-runner"]
NOBODY = 65534
NO_LOG = 1 << 30
MANY = 10_000
WIDTH = 500
LINES = 300
TALKATIVE = f"for i in $(seq {LINES}); do echo line $i; sleep 0.01; done"


def queued(place: Place, *scripts: str) -> int:
    steps = [(f"step {number}", script) for number, script in enumerate(scripts, start=1)]
    return place.control.start_jobs(place.repository, LABELS, steps)[0]


def is_running(pid: str) -> bool:
    """Say whether a process is there and not just waiting for its parent to look at its end."""
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "\nState:\tZ" not in status.read_text()


@contextmanager
def cut_wire(place: Place, upwards: list[bytes], downwards: list[bytes]) -> Iterator[tuple[Wire, tuple[str, str]]]:
    """Put a faulty wire before a place; yields it and which address to replace by which."""
    target = place.url.removeprefix("http://")
    with faulty_wire(target) as wire:
        wire.cuts_upwards, wire.cuts_downwards = list(upwards), list(downwards)
        yield wire, (target, wire.address)


def jit_config(place: Place, name: str = "spot-runner-a") -> str:
    return place.port().register(place.installation, place.repository, name, LABELS).jit_config


def ended(place: Place, job_id: int) -> Json:
    """Wait for the job's end and return all about it."""
    until(lambda: place.control.job(job_id, after=NO_LOG)["status"] == "completed", f"job {job_id} ends")
    return place.control.job(job_id)


def log_of(job: Json, step: int) -> list[str]:
    return [line["text"] for line in job["log"] if line["step"] == step]


def test_a_job_is_run_step_by_step_and_reported(place: Place, tmp_path: Path) -> None:
    job_id = queued(
        place,
        "echo one; pwd; cat > kept <<< 'from one'; sleep 600 & printf last",
        "cat kept; echo $GITHUB_REPOSITORY $RUNNER_NAME $CI",
    )
    with rehearsal_runner(tmp_path, jit_config(place)) as runner:
        assert runner.wait(60) == 0
    job = ended(place, job_id)
    assert (job["conclusion"], [step["starts"] for step in job["steps"]]) == ("success", [1, 1])
    assert log_of(job, 1) == ["one", str(tmp_path / "_work/widgets/widgets"), "last"]
    assert log_of(job, 2) == ["from one", f"{place.repository} spot-runner-a true"]
    ends = {step["number"]: step["completed_at"] for step in job["steps"]}
    assert all(line["at"] <= ends[line["step"]] for line in job["log"])
    assert [step["conclusion"] for step in job["steps"]] == ["success", "success"]


def test_the_first_failure_skips_the_rest_and_is_reported_as_a_success_of_the_runner(
    place: Place, tmp_path: Path
) -> None:
    job_id = queued(place, "echo before\nfalse\necho never", "echo never")
    with rehearsal_runner(tmp_path, jit_config(place)) as runner:
        assert runner.wait(60) == 0
    job = ended(place, job_id)
    assert job["conclusion"] == "failure"
    assert [line["text"] for line in job["log"]] == ["before", "Error: the step ended with exit code 1."]
    assert [(step["starts"], step["conclusion"]) for step in job["steps"]] == [(1, "failure"), (0, "skipped")]


def test_no_step_sees_the_secret(place: Place, tmp_path: Path) -> None:
    config = jit_config(place)
    job_id = queued(place, "env; echo $BASHPID; tr '\\0' '\\n' < /proc/self/environ; cat /proc/$PPID/cmdline")
    with rehearsal_runner(tmp_path, config) as runner:
        assert runner.wait(60) == 0
    text = "\n".join(log_of(ended(place, job_id), 1))
    assert "RUNNER_TRACKING_ID" in text
    assert "JITCONFIG" not in text
    assert config not in text


@pytest.mark.skipif(os.getuid() != 0, reason="only root can start the runner as somebody else")
def test_a_step_of_the_runners_own_user_cannot_read_the_runners_environment(place: Place) -> None:
    """The first environment of a process stays readable in /proc, unless the process is closed to its own user."""
    config = jit_config(place)
    job_id = queued(place, "cat /proc/$PPID/environ || echo closed")
    with nobodys_home() as home, rehearsal_runner(home, config, user=NOBODY) as runner:
        assert runner.wait(60) == 0
    assert "closed" in log_of(ended(place, job_id), 1)


@contextmanager
def nobodys_home() -> Iterator[Path]:
    """Make a folder that the user nobody owns and can reach, which pytest's own are not."""
    with tempfile.TemporaryDirectory(prefix="rehearsal-runner-") as folder:
        os.chown(folder, NOBODY, NOBODY)
        yield Path(folder)


def test_what_a_step_leaves_running_lives_until_the_job_ends_and_no_longer(place: Place, tmp_path: Path) -> None:
    stays = "(trap 'echo told to end; exit' TERM; while :; do echo still here; sleep 0.05; done) & echo $! > pid"
    job_id = queued(place, stays, "sleep 0.5; kill -0 $(cat pid) && echo it lives")
    with rehearsal_runner(tmp_path, jit_config(place)) as runner:
        assert runner.wait(60) == 0
    job = ended(place, job_id)
    assert log_of(job, 2) == ["it lives"]
    assert log_of(job, 1).count("still here") > 1
    assert log_of(job, 1)[-1] == "told to end"
    pid = (tmp_path / "_work/widgets/widgets/pid").read_text().strip()
    assert not is_running(pid)


def test_output_of_any_kind_arrives_whole(place: Place, tmp_path: Path) -> None:
    """More than may wait at once, a line longer than lines may be, bytes that are no text, no line end at the end."""
    script = f"seq -f %0{WIDTH}.0f {MANY}; head -c 100000 /dev/zero | tr '\\0' x; echo; printf '\\377\\n'; printf end"
    job_id = queued(place, script)
    with rehearsal_runner(tmp_path, jit_config(place)) as runner:
        assert runner.wait(100) == 0
    lines = log_of(ended(place, job_id), 1)
    assert lines[:MANY] == [f"{number:0{WIDTH}}" for number in range(1, MANY + 1)]
    assert "".join(lines[MANY:-2]) == "x" * 100000
    assert lines[-2:] == ["\ufffd", "end"]


@pytest.mark.parametrize(
    ("upwards", "downwards"),
    [
        pytest.param([b'"line 7"', b'"line 90"', b'"line 200"'], [], id="in the middle of a batch"),
        pytest.param([], [b'"line 7"', b'"line 90"', b'"line 200"'], id="before the answer to a batch"),
        pytest.param([b"PUT /_runner/sessions", b"/acquire", b"/renew", b"/finish"], [], id="in every other request"),
        pytest.param(
            [], [b"PUT /_runner/sessions", b"/offer", b"/acquire", b"/renew", b"/finish"], id="in every answer"
        ),
    ],
)
def test_a_connection_that_is_cut_doubles_nothing_and_loses_nothing(
    hasty: Place, tmp_path: Path, upwards: list[bytes], downwards: list[bytes]
) -> None:
    expected = len(upwards) + len(downwards)
    job_id = queued(hasty, TALKATIVE, "echo done")
    with cut_wire(hasty, upwards, downwards) as (wire, server):
        with rehearsal_runner(tmp_path, jit_config(hasty), server) as runner:
            assert runner.wait(100) == 0
        assert wire.cuts == expected
    job = ended(hasty, job_id)
    assert (job["conclusion"], [step["starts"] for step in job["steps"]]) == ("success", [1, 1])
    assert log_of(job, 1) == [f"line {number}" for number in range(1, LINES + 1)]
    until(lambda: len(hasty.receiver.of_job(job_id)) == 3, "three deliveries")
    assert hasty.receiver.actions_of(job_id) == ["queued", "in_progress", "completed"]


def test_a_pause_at_any_moment_does_no_harm(hasty: Place, tmp_path: Path) -> None:
    job_id = queued(hasty, TALKATIVE, TALKATIVE)
    with cut_wire(hasty, [], []) as (wire, server), rehearsal_runner(tmp_path, jit_config(hasty), server) as runner:
        while runner.poll() is None:
            with wire.frozen():
                threading.Event().wait(0.3)
            threading.Event().wait(0.2)
        assert runner.returncode == 0
    job = ended(hasty, job_id)
    assert (job["conclusion"], [step["starts"] for step in job["steps"]]) == ("success", [1, 1])
    for step in (1, 2):
        assert log_of(job, step) == [f"line {number}" for number in range(1, LINES + 1)]


def test_a_killed_runner_loses_its_lock_and_the_rerun_succeeds_elsewhere(hasty: Place, tmp_path: Path) -> None:
    """The whole way of a lost host, seen from GitHub."""
    job_id = queued(hasty, "true", f"echo begun; test -e {tmp_path}/second || sleep 600; echo finished")
    with rehearsal_runner(tmp_path / "first", jit_config(hasty)) as runner:
        until(lambda: log_of(hasty.control.job(job_id), 2), "the second step has begun")
        kill_group(runner.pid)
    job = ended(hasty, job_id)
    assert (job["conclusion"], job["runner_name"]) == ("failure", "spot-runner-a")

    (tmp_path / "second").mkdir()
    hasty.port().rerun_failed(hasty.installation, hasty.repository, job["run_id"])
    with rehearsal_runner(tmp_path / "second", jit_config(hasty, "spot-runner-b")) as runner:
        assert runner.wait(60) == 0
    again = hasty.control.job(job_id)["attempts"][1]
    assert (again["conclusion"], again["run_attempt"], again["runner_name"]) == ("success", 2, "spot-runner-b")
    until(lambda: len(hasty.receiver.of_job(again["id"])) == 3, "three deliveries")
    assert hasty.receiver.actions_of(job_id) == ["queued", "in_progress", "completed", "completed"]


def kill_group(pid: int) -> None:
    """Kill the runner and whatever it started, as the death of a machine does."""
    children = [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    for one in (pid, *children):
        os.killpg(one, 9)


@pytest.mark.parametrize("how", ["cancelled", "its lock has expired"])
def test_a_job_that_is_lost_is_ended_and_the_runner_says_so(hasty: Place, tmp_path: Path, how: str) -> None:
    job_id = queued(hasty, "echo $$; sleep 600", "echo never")
    with cut_wire(hasty, [], []) as (wire, server), rehearsal_runner(tmp_path, jit_config(hasty), server) as runner:
        (pid,) = until(lambda: log_of(hasty.control.job(job_id), 1), "the step has begun")
        if how == "cancelled":
            hasty.control.cancel(job_id)
        else:
            with wire.frozen():
                ended(hasty, job_id)
        assert runner.wait(60) == 1
    assert not is_running(pid)
    job = hasty.control.job(job_id)
    assert job["conclusion"] == ("cancelled" if how == "cancelled" else "failure")
    assert job["steps"][1]["starts"] == 0
    assert "lost" in (tmp_path / "runner.log").read_text()


def test_a_runner_that_is_told_to_stop_ends_its_step(place: Place, tmp_path: Path) -> None:
    job_id = queued(place, "echo $$; sleep 600")
    with rehearsal_runner(tmp_path, jit_config(place)) as runner:
        (pid,) = until(lambda: log_of(place.control.job(job_id), 1), "the step has begun")
        runner.terminate()
        assert runner.wait(60) == 1
    assert not is_running(pid)
    place.control.cancel(job_id)


@pytest.mark.parametrize("config", ["", "nonsense", "e30=", "eyIucnVubmVyIjogImUzMD0ifQ=="])
def test_a_configuration_that_is_of_no_use_is_refused_without_being_shown(tmp_path: Path, config: str) -> None:
    with rehearsal_runner(tmp_path, config) as runner:
        assert runner.wait(60) == 2
    text = (tmp_path / "runner.log").read_text()
    assert text.count("\n") == 1
    assert not config or config not in text


def test_a_registration_that_is_gone_ends_the_runner(place: Place, tmp_path: Path) -> None:
    registration = place.port().register(place.installation, place.repository, "spot-runner-a", LABELS)
    place.port().deregister(place.installation, place.repository, registration.github_id)
    with rehearsal_runner(tmp_path, registration.jit_config) as runner:
        assert runner.wait(60) == 1


def test_a_runner_that_is_too_old_waits_in_vain_until_that_age_is_young_enough(place: Place, tmp_path: Path) -> None:
    place.control.set_oldest_runner("9.9")
    try:
        job_id = queued(place, "true")
        with rehearsal_runner(tmp_path, jit_config(place)) as runner:
            mine = "spot-runner-a"
            until(lambda: any(one["online"] for one in place.control.runners() if one["name"] == mine), "it is online")
            assert place.control.job(job_id)["status"] == "queued"
            place.control.set_oldest_runner("0.1")
            assert runner.wait(60) == 0
    finally:
        place.control.set_oldest_runner("")
    assert ended(place, job_id)["conclusion"] == "success"
