from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

import pytest

from workers.bootstrap.agenda import Agenda

PATIENCE_S = 30.0


@dataclass
class Looks:
    """Who was looked at."""

    seen: list[str] = field(default_factory=list)
    enough: threading.Event = field(default_factory=threading.Event)
    wanted: int = 1

    def __call__(self, row: str) -> None:
        self.seen.append(row)
        if len(self.seen) >= self.wanted:
            self.enough.set()


def test_a_row_is_due_at_its_moment_and_once() -> None:
    now = [1000.0]
    agenda = Agenda[str](lambda _: None, lambda: now[0])
    agenda.close()  # its own thread is not to take what is asked for here
    agenda.put("late", 1002.0)
    agenda.put("early", 1001.0)
    assert agenda.due() == []
    now[0] = 1001.0
    assert agenda.due() == ["early"]
    now[0] = 1009.0
    assert agenda.due() == ["late"]
    assert agenda.due() == []


@pytest.mark.parametrize("then", [1001.0, 1005.0])
def test_the_last_word_about_a_row_counts(then: float) -> None:
    now = [1000.0]
    agenda = Agenda[str](lambda _: None, lambda: now[0])
    agenda.close()
    agenda.put("row", 1003.0)
    agenda.put("row", then)
    now[0] = 1009.0
    assert agenda.due() == ["row"]
    assert agenda.due() == []


def test_rows_are_looked_at_when_their_time_has_come_the_earliest_first() -> None:
    looks = Looks(wanted=3)
    agenda = Agenda[str](looks)
    soon = time.time() + 0.2
    for row, after in (("c", 0.2), ("a", 0.0), ("b", 0.1)):
        agenda.put(row, soon + after)
    assert looks.enough.wait(PATIENCE_S)
    assert looks.seen == ["a", "b", "c"]
    assert time.time() >= soon + 0.2
    agenda.close()


def test_nothing_is_looked_at_once_it_is_closed() -> None:
    looks = Looks()
    agenda = Agenda[str](looks)
    agenda.put("row", time.time() + 3600)
    agenda.close()
    agenda.put("row", 0.0)
    assert not looks.enough.wait(0.2)
