"""What a restarted daemon finds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from workers.domain.errors import Bug
from workers.domain.messages import BootOrder, MoveOrder
from workers.domain.migration import Ports
from workers.domain.names import HostId, PackageDigest, guest_address, migration_id, runner_id
from workers.domain.runner import Shape
from workers.host.journal import Entry, Journal, Standing
from workers.host.processes import ProcessName

RUNNER = runner_id("one")
ORDER = BootOrder(RUNNER, 3, 7, PackageDigest("sha256:00"), Shape(1, 1024, 4096), guest_address(7))
MOVE = MoveOrder(migration_id("m"), ORDER, HostId("peer"), "10.90.0.17", 55.5, 2, Ports(49152, 49153))
ENTRY = Entry(RUNNER, Standing.SENDING, ORDER, ProcessName(12, 3456), MOVE, moves=1, gone_epoch=1)


def test_an_entry_comes_back_as_it_was_written(tmp_path: Path) -> None:
    Journal(tmp_path / "journal").write(ENTRY)
    assert list(Journal(tmp_path / "journal").entries()) == [ENTRY]


def test_the_last_word_about_a_runner_counts(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write(ENTRY)
    gone = Entry(RUNNER, Standing.GONE, gone_epoch=3)
    journal.write(gone)
    assert list(journal.entries()) == [gone]
    assert gone.epoch == ENTRY.epoch == 3


def test_what_was_forgotten_is_as_if_it_had_never_been(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write(ENTRY)
    journal.forget(RUNNER)
    journal.forget(RUNNER)
    assert list(journal.entries()) == []


def test_a_half_written_entry_leaves_the_whole_one(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write(ENTRY)
    (tmp_path / f"{RUNNER}.new").write_bytes(b'{"runner_id": "spot-')
    assert list(journal.entries()) == [ENTRY]
    journal.write(replace(ENTRY, standing=Standing.OWNED))
    assert [entry.standing for entry in journal.entries()] == [Standing.OWNED]


def test_an_entry_that_we_did_not_write_stops_the_daemon(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(Bug, match=r"other\.json"):
        list(Journal(tmp_path).entries())
