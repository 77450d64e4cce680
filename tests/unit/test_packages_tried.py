"""`./dev package try`, as far as it needs no guest: what it makes, asks and decides, and the name server beside it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.packages.inputs import archive_files, make_archive, make_recipe
from tests.packages.job import secret_of, stands_in
from tests.packages.names import answer, wired
from tests.packages.questions import STEPS, Question, Step, facts, wrongs
from tests.unit.oci_image import write_image
from workers.host.archive import hashed
from workers.host.recipe import read_recipe
from workers.rehearsal.github.broker import encoded

ADDRESS, NAME = "198.18.0.10", "github.tried.example"


def test_the_archive_is_accepted_as_actions_runner_s_and_its_listener_has_a_program(tmp_path: Path) -> None:
    archive = make_archive(tmp_path)

    hashed(archive)
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path / "unpacked", filter="data")
    compiled = [path for path in (tmp_path / "unpacked").rglob("*.py") if compile(path.read_text(), str(path), "exec")]
    assert {path.name for path in compiled} >= {"listener.py", "steps.py", "broker.py"}
    for name, (_, mode) in archive_files().items():
        assert (tmp_path / "unpacked" / name).stat().st_mode & 0o777 == mode, name


def test_the_listener_writes_its_configuration_and_warms_up_as_actions_runner_does(tmp_path: Path) -> None:
    with tarfile.open(make_archive(tmp_path)) as tar:
        tar.extractall(tmp_path, filter="data")
    files = {".runner": encoded({}), ".credentials": encoded({"Data": {"Secret": "s3cret"}})}
    told = {"PATH": os.environ["PATH"], "ACTIONS_RUNNER_INPUT_JITCONFIG": encoded(files)}

    warmed = subprocess.run([tmp_path / "bin/Runner.Listener", "warmup"], timeout=60, check=False, env={})
    ran = subprocess.run([tmp_path / "run.sh"], timeout=60, check=False, env=told, capture_output=True, text=True)

    assert (warmed.returncode, (tmp_path / "warmed-up").read_text()) == (0, str(os.getuid()))
    assert json.loads((tmp_path / ".credentials").read_text()) == {"Data": {"Secret": "s3cret"}}
    # The configuration names no server, and the rehearsal's runner was there to say so.
    assert "is not a just-in-time configuration" in ran.stdout
    assert secret_of(encoded(files)) == "s3cret"


def test_the_recipe_is_ours_for_a_smaller_machine_and_not_the_tree_s(tmp_path: Path) -> None:
    recipe = read_recipe(make_recipe(tmp_path, "tried"))

    assert recipe.home == tmp_path.resolve() / "runner-vm"
    assert (recipe.name, recipe.machine.vcpus) == ("tried", 1)
    assert "docker.io" in recipe.rootfs.packages
    assert "/home/runner/actions-runner/run.sh" in recipe.runner.command


def test_an_image_s_layer_is_the_tar_that_was_given(tmp_path: Path) -> None:
    layout = write_image(tmp_path / "layout", b"a tar", ["A=b"])

    assert b"a tar" in {blob.read_bytes() for blob in (layout / "blobs/sha256").iterdir()}


@pytest.mark.parametrize(
    ("command", "answers"),
    [
        ("echo one; echo two", "two"),
        ("false", ""),
        ("echo because >&2; exit 3", "because"),
        ("printf '%s %%d' 100%", "100% %d"),
        ("no-such-program-here", ".*not found"),
    ],
)
def test_a_question_s_answer_is_the_last_line_whatever_becomes_of_its_command(command: str, answers: str) -> None:
    step = Step("one", [Question("it", command, answers), Question("after", "echo on", "on")], before="set -u")

    ran = subprocess.run(["bash", "-e", "-c", step.script], capture_output=True, text=True, timeout=60, check=False)

    assert (ran.returncode, wrongs([step], facts(ran.stdout.splitlines()))) == (0, [])


@pytest.mark.parametrize("kind", STEPS)
def test_every_step_is_a_script_that_bash_can_read(kind: str) -> None:
    assert shutil.which("bash")
    for step in STEPS[kind]:
        read = subprocess.run(
            ["bash", "-n"], input=step.script, text=True, capture_output=True, timeout=60, check=False
        )
        assert (read.returncode, read.stderr) == (0, ""), step.name


def test_what_is_missing_or_otherwise_is_named() -> None:
    step = Step("who", [Question("user", "id", "runner"), Question("root", "id", "0"), Question("none", "id", ".*")])

    assert wrongs([step], facts(["noise", "FACT user runner", "FACT root 01", " FACT none x"])) == [
        "root: '01' is not '0'",
        "none: no answer",
    ]
    assert wrongs([step], {"user": "runner", "root": "0", "none": ""}) == []


def test_a_text_is_found_in_a_disk_by_its_beginning(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(100_000) + b"x" * 1024 + bytes(100_000))

    assert stands_in(disk, "x" * 5000)
    assert not stands_in(disk, "y" * 5)


def _query(name: str, kind: int) -> bytes:
    return struct.pack("!6H", 7, 0x0100, 1, 0, 0, 0) + wired(name) + struct.pack("!2H", kind, 1)


@pytest.mark.parametrize(
    ("name", "kind", "status", "answers"),
    [(NAME, 1, 0, 1), (NAME.upper(), 1, 0, 1), (NAME, 28, 0, 0), ("x.y", 1, 3, 0)],
)
def test_the_name_server_knows_one_address_of_one_name(name: str, kind: int, status: int, answers: int) -> None:
    said = answer(_query(name, kind), NAME, ADDRESS)

    identity, flags, questions, count, *_ = struct.unpack_from("!6H", said)
    assert (identity, flags & 0xF, questions, count) == (7, status, 1, answers)
    assert said.endswith(socket.inet_aton(ADDRESS)) is bool(answers)
