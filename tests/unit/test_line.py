from __future__ import annotations

from workers.domain.names import MigrationId
from workers.host.line import Line

A, B, C = (MigrationId(name) for name in "abc")


def test_who_is_alone_takes_what_it_gets() -> None:
    line = Line()
    line.join(A, 50.0)
    assert line.limit(A) is None


def test_several_have_what_was_planned_and_more_when_one_has_ended() -> None:
    line = Line()
    for move in (A, B, C):
        line.join(move, 30.0)
    assert [line.limit(move) for move in (A, B, C)] == [30.0, 30.0, 30.0]
    line.leave(B)
    assert [line.limit(move) for move in (A, B, C)] == [45.0, None, 45.0]
    line.leave(A)
    assert line.limit(C) is None
    line.join(A, 30.0)
    assert [line.limit(move) for move in (A, C)] == [45.0, 45.0]


def test_a_line_that_was_never_measured_is_not_divided() -> None:
    line = Line()
    line.join(A, None)
    line.join(B, 30.0)
    assert (line.limit(A), line.limit(B)) == (None, None)


def test_the_best_that_all_carried_together_is_remembered_until_it_is_idle() -> None:
    line = Line()
    line.join(A, 50.0)
    line.join(B, 50.0)
    line.note(A, 40.0)
    line.note(B, 55.0)
    line.note(A, 20.0)
    assert line.best_mib_s == 95.0
    line.leave(A)
    line.note(A, 1000.0)
    line.note(B, 80.0)
    assert line.best_mib_s == 95.0
    line.leave(B)
    line.join(C, None)
    assert line.best_mib_s == 0.0
