"""The relay's table: the later epoch has a runner, and nothing late brings a former host back."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.domain.errors import BadInput, Refused
from workers.domain.names import GuestAddress, RunnerId, guest_address
from workers.ports import Forwarding
from workers.relay.forwarding import REMEMBERED_MAX, Table, forget, point, replace_all

A, B = "10.90.0.16", "10.90.0.17"


def entry(name: str = "one", epoch: int = 1, host: str = A, number: int = 0) -> Forwarding:
    return Forwarding(RunnerId(name), epoch, guest_address(number), host)


def hosts(table: Table) -> dict[str, str]:
    return {str(runner_id): each.host_address for runner_id, each in table.entries.items()}


def test_a_higher_epoch_moves_a_runner() -> None:
    assert hosts(point(point(Table(), entry()), entry(epoch=2, host=B))) == {"one": B}


def test_a_lower_epoch_is_refused() -> None:
    with pytest.raises(Refused, match="epoch 2 already"):
        point(point(Table(), entry(epoch=2, host=B)), entry(epoch=1))


def test_the_same_again_changes_nothing() -> None:
    table = point(Table(), entry())
    assert point(table, entry()) == table


def test_one_epoch_has_one_place() -> None:
    with pytest.raises(Refused, match="two places need two epochs"):
        point(point(Table(), entry()), entry(host=B))


def test_what_was_forgotten_stays_forgotten() -> None:
    table = forget(point(Table(), entry(epoch=3)), RunnerId("one"), 3)
    assert not table.entries
    with pytest.raises(Refused, match="forgotten at epoch 3"):
        point(table, entry(epoch=3))


def test_a_late_forget_takes_nothing_from_a_higher_epoch() -> None:
    table = point(Table(), entry(epoch=2, host=B))
    assert forget(table, RunnerId("one"), 1) == table


def test_a_forget_that_comes_first_bars_the_word_that_it_overtook() -> None:
    with pytest.raises(Refused):
        point(forget(Table(), RunnerId("one"), 1), entry(epoch=1))


def test_an_address_belongs_to_its_latest_runner() -> None:
    table = point(point(Table(), entry("old", epoch=7)), entry("fresh", host=B))
    assert hosts(table) == {"fresh": B}
    with pytest.raises(Refused):
        point(table, entry("old", epoch=7))


def test_a_full_word_holds_exactly_its_runners_but_never_goes_back() -> None:
    table = point(point(Table(), entry("moved", epoch=5, host=B)), entry("gone", number=1))
    table = replace_all(table, [entry("moved", epoch=4, host=A), entry("fresh", number=2)])
    assert hosts(table) == {"moved": B, "fresh": A}


def test_a_full_word_that_is_older_than_a_runner_costs_it_nothing() -> None:
    """It was made before the runner was pointed to; the next one knows it, and may bring it back at the same epoch."""
    table = point(Table(), entry("fresh", epoch=1))
    assert hosts(replace_all(table, [], fresh={RunnerId("fresh")})) == {"fresh": A}
    dropped = replace_all(table, [])
    assert hosts(dropped) == {}
    assert hosts(replace_all(dropped, [entry("fresh", epoch=1)])) == {"fresh": A}


def test_memory_of_the_forgotten_is_bounded() -> None:
    table = Table(forgotten={RunnerId(str(number)): 1 for number in range(REMEMBERED_MAX)})
    table = forget(table, RunnerId("last"), 1)
    assert len(table.forgotten) == REMEMBERED_MAX
    assert RunnerId("last") in table.forgotten
    assert RunnerId("0") not in table.forgotten


@pytest.mark.parametrize(
    "wrong",
    [
        replace(entry(), host_address="10.90.0.16; flush ruleset"),
        replace(entry(), host_address="fe80::1"),
        replace(entry(), address=GuestAddress(mac="52:54:00:77:00:11", ip="10.77.0.16")),
        replace(entry(), address=GuestAddress(mac="52:54:00:77:00:01", ip="10.77.0.1")),
        replace(entry(), address=GuestAddress(mac="52:54:00:77:00:10", ip="10.90.0.3")),
        replace(entry(), address=replace(guest_address(0), gateway="10.77.0.9")),
    ],
)
def test_an_entry_that_could_not_be_ours_is_refused_whole(wrong: Forwarding) -> None:
    with pytest.raises(BadInput):
        point(Table(), wrong)
    with pytest.raises(BadInput):
        replace_all(Table(), [entry("other", number=1), wrong])


words = st.tuples(st.sampled_from(["point", "forget"]), st.integers(1, 4), st.sampled_from([A, B]))


@given(st.lists(words))
def test_no_order_of_words_lowers_an_epoch(said: list[tuple[str, int, str]]) -> None:
    table, highest = Table(), 0
    for word, epoch, host in said:
        if word == "forget":
            table = forget(table, RunnerId("one"), epoch)
        else:
            try:
                table = point(table, entry(epoch=epoch, host=host))
            except Refused:
                continue
            assert epoch >= highest
            highest = epoch
