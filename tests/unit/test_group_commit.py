"""Group commit: nobody is answered before the commit, nobody pays for another's row, nobody waits for ever."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from tests.contract.store_rows import a_delivery
from webhook.group_commit import ROWS_MAX, WAITING_MAX, GroupCommit
from workers.domain.errors import Bug, Unreachable
from workers.domain.events import Delivery

PATIENCE_S = 30.0
Guids = list[str]


@dataclass
class Disk:
    """Takes batches, one after the other; may be held, refuse everything, or choke on single rows."""

    is_free: threading.Event = field(default_factory=threading.Event)
    is_writing: threading.Event = field(default_factory=threading.Event)
    is_there: bool = True
    chokes_on: tuple[str, ...] = ()
    tried: list[Guids] = field(default_factory=list)
    kept: list[Guids] = field(default_factory=list)
    told: list[Guids] = field(default_factory=list)

    def write(self, rows: Sequence[Delivery]) -> None:
        self.is_writing.set()
        assert self.is_free.wait(PATIENCE_S)
        guids = [row.guid for row in rows]
        self.tried.append(guids)
        if not self.is_there:
            raise Unreachable("the disk is not there")
        if bad := [guid for guid in guids if guid in self.chokes_on]:
            raise Bug(f"it cannot take {bad[0]}")
        self.kept.append(guids)

    def tell(self, rows: Sequence[Delivery]) -> None:
        assert [row.guid for row in rows] in ([], [guid for batch in self.kept for guid in batch][-len(rows) :])
        self.told.append([row.guid for row in rows])


@dataclass
class Requests:
    """Requests that are being answered, each in a thread of its own."""

    commit: GroupCommit
    pool: ThreadPoolExecutor

    def put(self, guid: str) -> Future[None]:
        joined = self.commit_size()
        answer = self.pool.submit(self.commit.put, a_delivery(guid))
        eventually(lambda: self.commit_size() > joined or answer.done())
        return answer

    def commit_size(self) -> int:
        return sum(len(batch.places) for batch in list(self.commit._waiting))


def eventually(is_so: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(int(PATIENCE_S * 200)):
        if is_so():
            return
        pause.wait(0.005)
    raise AssertionError("it did not come to be in time")


@pytest.fixture
def disk() -> Disk:
    return Disk()


def written_together(disk: Disk, *guids: str) -> dict[str, Future[None]]:
    """Let these come while another one is being written, and wait until all were answered."""
    commit = GroupCommit(disk.write, disk.tell, PATIENCE_S)
    with ThreadPoolExecutor(len(guids) + 1) as pool:
        requests = Requests(commit, pool)
        first = pool.submit(commit.put, a_delivery("first"))
        assert disk.is_writing.wait(PATIENCE_S)
        answers = {f"{guid} {number}": requests.put(guid) for number, guid in enumerate(guids)}
        assert not first.done()
        assert not any(answer.done() for answer in answers.values()), "nobody is answered before the commit"
        disk.is_free.set()
    return {"first": first, **answers}


def errors(answers: dict[str, Future[None]]) -> list[type[BaseException] | None]:
    return [type(error) if (error := answer.exception()) else None for answer in answers.values()]


def test_what_comes_during_a_commit_shares_the_next_one_and_is_answered_after_it(disk: Disk) -> None:
    answers = written_together(disk, "a", "b", "c")
    assert errors(answers) == [None] * 4
    assert disk.kept == disk.told == [["first"], ["a", "b", "c"]]


def test_a_row_that_fails_gets_its_error_and_the_others_are_written(disk: Disk) -> None:
    disk.chokes_on = ("c", "f")
    answers = written_together(disk, *"abcdef")
    assert errors(answers) == [None, None, None, Bug, None, None, Bug]
    assert sorted(guid for batch in disk.kept for guid in batch) == ["a", "b", "d", "e", "first"]
    assert disk.told[-1] == ["a", "b", "d", "e"]
    assert str(answers["f 5"].exception()) == "it cannot take f"


def test_a_store_that_is_not_there_is_asked_once_for_all(disk: Disk) -> None:
    disk.is_there = False
    answers = written_together(disk, "a", "b", "c")
    assert errors(answers) == [Unreachable] * 4
    assert disk.tried == [["first"], ["a", "b", "c"]]
    assert disk.told == [[], []]


def test_whoever_is_told_after_the_commit_and_fails_keeps_nobody_from_being_written(disk: Disk) -> None:
    def fail(rows: Sequence[Delivery]) -> None:
        disk.tell(rows)
        raise Bug("nobody can be told")

    disk.is_free.set()
    commit = GroupCommit(disk.write, fail, PATIENCE_S)
    for guid in ("a", "b"):
        commit.put(a_delivery(guid))
    assert disk.kept == disk.told == [["a"], ["b"]]


def test_a_store_that_hangs_holds_nobody_up_for_longer_than_the_limit_and_is_used_again_when_it_goes_on(
    disk: Disk,
) -> None:
    commit = GroupCommit(disk.write, disk.tell, limit_s=0.05)
    for guid in ("a", "b"):
        with pytest.raises(Unreachable, match=r"0\.05 s"):
            commit.put(a_delivery(guid))
    with pytest.raises(Unreachable):
        commit.put(None)
    disk.is_free.set()
    eventually(lambda: disk.kept == [["a"], ["b"]])
    GroupCommit(disk.write, disk.tell).put(a_delivery("c"))
    assert disk.kept[-1] == ["c"]


def test_a_store_that_hangs_for_long_fills_no_memory(disk: Disk) -> None:
    commit = GroupCommit(disk.write, disk.tell, limit_s=0.0)
    for number in range(WAITING_MAX + 2 * ROWS_MAX):
        with pytest.raises(Unreachable):
            commit.put(a_delivery(str(number)))
    assert sum(len(batch.places) for batch in commit._waiting) <= WAITING_MAX + ROWS_MAX
    disk.is_free.set()


def test_nothing_is_written_to_find_out_whether_a_transaction_gets_through(disk: Disk) -> None:
    disk.is_free.set()
    commit = GroupCommit(disk.write, disk.tell, PATIENCE_S)
    commit.put(None)
    assert disk.kept == [[]]
    disk.is_there = False
    with pytest.raises(Unreachable, match="not there"):
        commit.put(None)
