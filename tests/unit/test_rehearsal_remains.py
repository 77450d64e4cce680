from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from workers.domain.errors import BadInput, Unfit
from workers.rehearsal import preflight, remains
from workers.rehearsal.places import Places, host_address
from workers.rehearsal.remains import Journal, Kind, Remnant

LIMIT_S = 20.0


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield child
    child.kill()
    child.wait(LIMIT_S)


@pytest.mark.parametrize("name", ["", "Upper", "a-b", "toolongname", "9a", "a/b", "a b"])
def test_a_name_that_could_meet_another_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match="rehearsal name"):
        Places(name)


def test_there_is_room_for_so_many_hosts_and_no_more() -> None:
    assert (host_address(0), host_address(234)) == ("10.90.0.16", "10.90.0.250")
    with pytest.raises(BadInput, match="room for"):
        host_address(235)


def test_the_journal_gives_back_what_was_noted_each_once_even_with_a_torn_end(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "run" / "journal.jsonl")
    assert journal.remnants() == ()
    for _ in range(2):
        journal.note(Kind.NAMESPACE, "spot-a")
    journal.note(Kind.PROGRAM, "17", started=4711)
    with journal.path.open("a") as file:
        file.write('{"kind": "namesp')
    assert journal.remnants() == (Remnant(Kind.NAMESPACE, "spot-a"), Remnant(Kind.PROGRAM, "17", 4711))


def test_a_process_is_known_by_its_start_and_unknown_once_it_is_a_zombie(sleeper: subprocess.Popen[bytes]) -> None:
    assert remains.start_time(sleeper.pid) > 0
    assert remains.start_time(sleeper.pid) != remains.start_time(1)
    sleeper.kill()
    assert remains.wait_until(lambda: remains.start_time(sleeper.pid) == 0, LIMIT_S)


def test_killing_goes_on_until_nothing_is_listed(sleeper: subprocess.Popen[bytes]) -> None:
    def listed() -> frozenset[int]:
        return frozenset({sleeper.pid}) if remains.start_time(sleeper.pid) else frozenset()

    assert remains.kill_all(listed)
    assert sleeper.wait(LIMIT_S) == -9


def test_what_cannot_be_killed_is_said() -> None:
    assert remains.kill_all(lambda: frozenset({2**22 + 1}), limit_s=0.1) is False


def test_a_process_that_names_our_folder_is_found_and_we_are_not(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", f"{tmp_path}/socket"])
    try:
        assert remains.wait_until(lambda: child.pid in remains.using(tmp_path), LIMIT_S)
        assert os.getpid() not in remains.using(tmp_path)
    finally:
        child.kill()
        child.wait(LIMIT_S)


def test_waiting_ends_at_its_limit() -> None:
    began = time.monotonic()
    assert remains.wait_until(lambda: False, 0.05) is False
    assert time.monotonic() - began >= 0.05


def test_a_missing_resource_is_named_with_its_remedy() -> None:
    with pytest.raises(Unfit, match=r"MiB of memory are free and \d+ are needed.*--jobs"):
        preflight.check_memory(jobs=100_000)
    with pytest.raises(Unfit, match=r"MiB are free in /.* and \d+ are needed"):
        preflight.check_disk(Path("/nowhere/at/all"), jobs=100_000_000)
    with pytest.raises(Unfit, match="apt-get install not-a-package"):
        preflight.check_programs({"not-a-program": "not-a-package"})
    preflight.check_programs({"sh": "dash"})
