"""Whoever asks for a look gets one that begins after that, and no row is looked at by two at once."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field

import pytest

from workers.bootstrap.looks import Looks, Row

PATIENCE_S = 30.0
ONE, OTHER = ("job", "1"), ("job", "2")


@dataclass
class Rows:
    """Rows that are looked at; each look waits until it is let go."""

    begun: list[Row] = field(default_factory=list)
    at_once: Counter[Row] = field(default_factory=Counter)
    most_at_once: int = 0
    has_begun: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    let_go: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def look(self, row: Row) -> None:
        self.at_once[row] += 1
        self.most_at_once = max(self.most_at_once, self.at_once[row])
        self.begun.append(row)
        self.has_begun.release()
        assert self.let_go.acquire(timeout=PATIENCE_S)
        self.at_once[row] -= 1


@pytest.fixture
def rows() -> Rows:
    return Rows()


@pytest.fixture
def looks(rows: Rows) -> Iterator[Looks]:
    made = Looks(rows.look, 2)
    yield made
    rows.let_go.release(100)
    made.close()


@pytest.fixture
def narrow(rows: Rows) -> Iterator[Looks]:
    """Looks of which one is under way, so that the others wait."""
    made = Looks(rows.look, 1)
    made.soon(ONE)
    assert rows.has_begun.acquire(timeout=PATIENCE_S)
    yield made
    rows.let_go.release(100)
    made.close()


def test_who_asks_while_a_look_waits_shares_it(narrow: Looks, rows: Rows) -> None:
    asked = [narrow.soon(OTHER), narrow.unless_under_way(OTHER), narrow.soon(OTHER)]
    rows.let_go.release(2)
    wait(asked, PATIENCE_S)
    assert rows.begun == [ONE, OTHER]
    assert all(one is asked[0] and one.done() for one in asked)


def test_who_asks_while_a_look_is_under_way_gets_one_more_after_it(looks: Looks, rows: Rows) -> None:
    first = looks.soon(ONE)
    assert rows.has_begun.acquire(timeout=PATIENCE_S)
    again = [looks.soon(ONE), looks.soon(ONE)]
    rows.let_go.release()
    assert rows.has_begun.acquire(timeout=PATIENCE_S)
    assert first.done()
    assert not any(one.done() for one in again)
    rows.let_go.release()
    wait(again, PATIENCE_S)
    assert rows.begun == [ONE, ONE]
    assert rows.most_at_once == 1


def test_a_row_that_is_asked_for_again_and_again_does_not_keep_others_waiting(narrow: Looks, rows: Rows) -> None:
    narrow.soon(OTHER)
    narrow.soon(ONE)
    rows.let_go.release(3)
    wait([narrow.soon(ONE)], PATIENCE_S)
    assert rows.begun == [ONE, OTHER, ONE]


def test_who_may_wait_lets_others_pass_but_not_for_ever(narrow: Looks, rows: Rows) -> None:
    sweeps, late, hint = ("job", "swept"), ("job", "overdue"), ("runner", "r")
    asked = [narrow.soon(late, -1.0), narrow.soon(sweeps, 60.0), narrow.soon(OTHER, 1.0), narrow.soon(hint)]
    rows.let_go.release(5)
    wait(asked, PATIENCE_S)
    assert rows.begun == [ONE, late, hint, OTHER, sweeps]


def test_who_waits_is_not_made_to_wait_longer_by_whoever_has_more_time(narrow: Looks, rows: Rows) -> None:
    first, other = ("job", "first"), ("job", "other")
    asked = [narrow.soon(first, 60.0), narrow.soon(other, 30.0), narrow.soon(first), narrow.soon(first, 90.0)]
    rows.let_go.release(3)
    wait(asked, PATIENCE_S)
    assert rows.begun == [ONE, first, other]


def test_whom_a_look_that_is_under_way_is_enough_for_shares_that(narrow: Looks, rows: Rows) -> None:
    asked = narrow.unless_under_way(ONE)
    rows.let_go.release()
    wait([asked], PATIENCE_S)
    assert asked.done()
    assert rows.begun == [ONE]


def test_nobody_waits_for_looks_that_will_not_be(narrow: Looks, rows: Rows) -> None:
    waiting, again = narrow.soon(OTHER), narrow.soon(ONE)
    narrow.close()
    assert waiting.done()
    assert again.done()
    assert narrow.soon(OTHER).done()
    rows.let_go.release(3)
    narrow.close()
    assert rows.begun == [ONE]


def test_every_asker_is_answered_by_a_look_that_began_after_it_had_asked() -> None:
    told, seen, wrong = Counter[Row](), Counter[Row](), list[Row]()
    lock = threading.Lock()
    busy = Counter[Row]()

    def look(row: Row) -> None:
        with lock:
            busy[row] += 1
            if busy[row] > 1:
                wrong.append(row)
            now = told[row]
        threading.Event().wait(0.0005)
        with lock:
            seen[row] = max(seen[row], now)
            busy[row] -= 1

    looks = Looks(look, 3)

    def tell(of: int) -> None:
        for number in range(200):
            row = "job", str((number * (of + 1)) % 5)
            with lock:
                told[row] += 1
                mine = told[row]
            wait([looks.soon(row)], PATIENCE_S)
            with lock:
                if seen[row] < mine:
                    wrong.append(row)

    with ThreadPoolExecutor(4) as tellers:
        for done in [tellers.submit(tell, number) for number in range(4)]:
            done.result(PATIENCE_S)
    looks.close()
    assert not wrong
    assert sum(told.values()) == 800
