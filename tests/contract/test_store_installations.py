"""What GitHub says of an installation becomes one row, in whatever order and however often it comes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from itertools import permutations

from tests.contract.store_rows import START, WholeStore
from tests.unit.test_installation import a_fact, sum_of
from workers.domain.events import Delivery, Happening
from workers.domain.installation import InstallationAction, InstallationFact
from workers.store.repository import SqlStore

_A = InstallationAction
FACTS = (
    a_fact(_A.SUSPEND, 1),
    a_fact(_A.UNSUSPEND, 1),
    a_fact(_A.REMOVED, 2, removed=("octo/hello", "octo/bye")),
    a_fact(_A.ADDED, 3, added=("octo/bye",)),
)


def told(fact: InstallationFact) -> Delivery:
    return Delivery(fact.delivery, "installation", fact.action.value, START, b"", installation=fact)


def test_nothing_is_known_of_an_installation_of_which_nothing_was_said(store: WholeStore) -> None:
    assert store.installation(7) is None


def test_it_comes_back_equal(store: WholeStore) -> None:
    for fact in FACTS:
        store.write_deliveries([told(fact)])
    assert store.installation(7) == sum_of(FACTS)


def test_what_is_sent_again_undoes_nothing_that_was_said_since(store: WholeStore) -> None:
    """Where GitHub's date stands still, that which was heard later counts: a redelivery was not said later."""
    removed = a_fact(_A.REMOVED, 1, removed=("octo/hello",), said=0)
    added = a_fact(_A.ADDED, 2, added=("octo/hello",), said=0)
    again = replace(removed, seen_at=removed.seen_at + timedelta(minutes=2))
    store.write_deliveries([told(removed)])
    store.write_deliveries([told(added)])
    store.write_deliveries([told(again), told(a_fact(_A.REMOVED, 4, removed=("octo/bye",), said=0))])
    row = store.installation(7)
    assert row is not None
    assert row.refusal("octo/hello") is None
    assert "octo/bye was taken out" in (row.refusal("octo/bye") or ""), "what comes with it is heard"


def test_one_batch_may_say_several_things_and_a_double_writes_no_second_entry(sql_store: SqlStore) -> None:
    sql_store.write_deliveries([told(fact) for fact in reversed(FACTS)])
    row = sql_store.installation(7)
    assert row is not None
    assert (row.refusal("octo/hello") is None, row.refusal("octo/bye")) == (False, None)
    entries = len(sql_store.timeline())
    sql_store.write_deliveries([told(fact) for fact in FACTS])
    assert sql_store.installation(7) == row
    timeline = sql_store.timeline()
    assert len(timeline) == entries
    assert {event.happening for _, event in timeline} == {Happening.INSTALLATION_CHANGED}


def test_two_processes_that_hear_at_once_lose_no_word(sql_store: SqlStore) -> None:
    for order in list(permutations(FACTS))[:6]:
        with ThreadPoolExecutor(len(order)) as pool:
            list(pool.map(lambda fact: sql_store.write_deliveries([told(fact)]), order))
        assert sql_store.installation(7) == sum_of(FACTS)
