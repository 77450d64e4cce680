from __future__ import annotations

from datetime import datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.planning.rows import MINUTE, NOW, SECOND
from workers.domain.listed import DeliveryTry
from workers.planning.replaying import AGE_LIMIT, REPLAYS_MAX, TRIES_MAX, Failed, noted, remembered, replays


def tried(number: int, guid: str = "g", *, ok: bool = False, at: datetime = NOW) -> DeliveryTry:
    return DeliveryTry(number, guid, at, ok, 7)


def asked(failed: dict[str, Failed], now: datetime = NOW) -> list[int]:
    return [one.last_id for one in replays(failed, now)]


def test_a_group_without_a_success_is_asked_for_once_by_its_last_try() -> None:
    failed = noted({}, [tried(2, at=NOW - MINUTE), tried(1, at=NOW - 5 * MINUTE), tried(3, "h", ok=True)])
    assert asked(failed) == []  # the second try was a minute ago
    assert asked(failed, NOW + MINUTE) == [2]


def test_what_failed_once_is_asked_for_at_once() -> None:
    assert asked(noted({}, [tried(1)])) == [1]


def test_one_success_ends_a_group_whenever_it_is_read() -> None:
    assert noted({}, [tried(2, ok=True), tried(1)]) == {}
    assert noted(noted({}, [tried(1)]), [tried(2, ok=True)]) == {}


def test_a_try_that_is_read_twice_counts_once() -> None:
    once = noted({}, [tried(1)])
    assert noted(once, [tried(1)]) == once


def test_what_the_store_has_is_old_or_was_tried_often_is_forgotten() -> None:
    failed = noted({}, [tried(1), tried(2, "kept"), tried(3, "old", at=NOW - AGE_LIMIT)])
    often = noted(failed, [tried(10 + n, "often") for n in range(TRIES_MAX)])
    assert set(remembered(often, {"g"}, NOW)) == {"kept"}


def test_pauses_grow_and_end_at_ten_minutes() -> None:
    failed, now, pauses = noted({}, [tried(1)]), NOW, list[timedelta]()
    for number in range(2, 9):
        failed = noted(failed, [tried(number, at=now)])
        due = failed["g"].is_due_at
        pauses.append(due - now)
        now = due
    assert pauses == [100 * SECOND, 200 * SECOND, 400 * SECOND, *(4 * [10 * MINUTE])]


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.integers(0, 600)), max_size=40))
def test_nothing_that_succeeded_and_no_more_than_the_bound_is_asked_for(said: list[tuple[int, bool, int]]) -> None:
    tries = [
        tried(number, f"g{group}", ok=ok, at=NOW - timedelta(seconds=age))
        for number, (group, ok, age) in enumerate(said)
    ]
    asked_for = replays(remembered(noted({}, tries), (), NOW), NOW)
    assert not {one.guid for one in asked_for} & {one.guid for one in tries if one.is_ok}
    assert len(asked_for) == len({one.guid for one in asked_for})


def test_more_than_the_bound_waits_for_the_next_round() -> None:
    failed = noted({}, [tried(number, f"g{number}") for number in range(REPLAYS_MAX + 7)])
    assert len(replays(failed, NOW)) == REPLAYS_MAX
