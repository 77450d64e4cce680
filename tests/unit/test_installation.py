from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhook import deliveries
from workers.domain.errors import BadInput
from workers.domain.installation import Installation, InstallationAction, InstallationFact, InstallationState, heard
from workers.rehearsal.github.contract import published

START = datetime(2026, 11, 29, 8, tzinfo=UTC)
_A = InstallationAction
RECORDED = [
    (event, payload)
    for event in ("installation", "installation_repositories")
    for payload in published("deliveries")[event]
]


def a_fact(
    action: InstallationAction,
    minute: int,
    added: tuple[str, ...] = (),
    removed: tuple[str, ...] = (),
    said: int | None = None,
) -> InstallationFact:
    """Return what was heard in this minute, and said by GitHub's own date in the minute `said`, else in the same."""
    at = START + timedelta(minutes=minute)
    return InstallationFact(
        delivery=f"{action}-{minute}-{said}",
        action=action,
        seen_at=at,
        installation_id=7,
        account="octo",
        said_at=at if said is None else START + timedelta(minutes=said),
        is_suspended=action is _A.SUSPEND,
        takes_all=False,
        added=added,
        removed=removed,
    )


def sum_of(facts: list[InstallationFact] | tuple[InstallationFact, ...]) -> Installation:
    row = None
    for fact in facts:
        row = heard(row, fact)
    assert row is not None
    return row


def read(event: str, payload: dict[str, Any]) -> InstallationFact | None:
    headers = {"X-GitHub-Event": event, "X-GitHub-Delivery": "guid", "Content-Type": "application/json"}
    return deliveries.read(headers, json.dumps(payload).encode(), START).installation


@pytest.mark.parametrize(("event", "payload"), RECORDED)
def test_every_recorded_delivery_is_read(event: str, payload: dict[str, Any]) -> None:
    fact = read(event, payload)
    assert fact is not None
    installation = payload["installation"]
    assert (fact.installation_id, fact.account) == (installation["id"], installation["account"]["login"])
    assert (fact.action, fact.takes_all) == (payload["action"], installation["repository_selection"] == "all")
    assert fact.is_suspended is (payload["action"] == "suspend")
    for names, rows in ((fact.added, "repositories_added"), (fact.removed, "repositories_removed")):
        assert list(names) == [row["full_name"] for row in payload.get(rows, [])]


def test_the_recorded_suspension_and_its_lifting_have_one_date_and_the_lifting_stands() -> None:
    by_action = {payload["action"]: payload for _, payload in RECORDED}
    facts = [read("installation", by_action[action]) for action in ("suspend", "unsuspend")]
    assert all(facts)
    assert facts[0].said_at == facts[1].said_at  # type: ignore[union-attr]  # said above
    for order in permutations(filter(None, facts)):
        assert sum_of(order).state is InstallationState.ACTIVE
    assert sum_of([facts[0]]).state is InstallationState.SUSPENDED  # type: ignore[list-item]  # said above


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("installation",), None),
        (("installation", "id"), "7"),
        (("installation", "id"), 1 << 63),
        (("installation", "account"), None),
        (("installation", "account", "login"), "a\x00b"),
        (("installation", "updated_at"), "yesterday"),
        (("installation", "updated_at"), 1 << 62),
        (("installation", "repository_selection"), "some"),
        (("repositories_removed",), [{"full_name": "no-owner"}]),
        (("action",), None),
    ],
)
def test_a_wrong_value_is_refused_and_its_field_named(path: tuple[str, ...], value: object) -> None:
    payload = json.loads(json.dumps(next(one for event, one in RECORDED if event == "installation_repositories")))
    place = payload
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    with pytest.raises(BadInput, match=r"\.".join(path[:2])):
        read("installation_repositories", payload)


def test_an_action_that_github_may_invent_is_kept_without_a_fact() -> None:
    assert read("installation", {"action": "renamed"}) is None


def test_whatever_comes_after_it_a_removed_installation_stays_removed() -> None:
    row = sum_of([a_fact(_A.DELETED, 1), a_fact(_A.UNSUSPEND, 2), a_fact(_A.CREATED, 3)])
    assert "removed from octo" in (row.refusal("octo/hello") or "")


def test_an_older_word_does_not_undo_a_later_one() -> None:
    row = sum_of([a_fact(_A.SUSPEND, 5), a_fact(_A.UNSUSPEND, 4), a_fact(_A.CREATED, 0)])
    assert "suspended in octo" in (row.refusal("octo/hello") or "")
    row = sum_of([a_fact(_A.REMOVED, 5, removed=("octo/Hello",)), a_fact(_A.ADDED, 4, added=("octo/hello",))])
    assert "octo/hello was taken out" in (row.refusal("octo/hello") or "")
    assert row.refusal("octo/other") is None
    assert (
        sum_of([a_fact(_A.ADDED, 6, added=("octo/hello",)), a_fact(_A.REMOVED, 5, removed=("octo/hello",))]).refusal(
            "octo/hello"
        )
        is None
    )


def test_githubs_own_date_orders_and_where_it_stands_still_what_was_heard_later() -> None:
    late = a_fact(_A.REMOVED, 9, removed=("octo/hello",), said=1)
    assert sum_of([a_fact(_A.ADDED, 3, added=("octo/hello",), said=2), late]).refusal("octo/hello") is None
    row = sum_of([a_fact(_A.ADDED, 3, added=("octo/hello",), said=1), late])
    assert "octo/hello was taken out" in (row.refusal("octo/hello") or "")


FACTS = st.builds(
    a_fact,
    st.sampled_from(_A),
    st.integers(0, 3),
    added=st.sets(st.sampled_from(["o/a", "o/b"])).map(tuple),
    removed=st.sets(st.sampled_from(["o/a", "o/c"])).map(tuple),
    said=st.integers(0, 3),
)


@given(facts=st.lists(FACTS, min_size=1, max_size=6), drawing=st.data())
def test_order_and_doubles_make_no_difference(facts: list[InstallationFact], drawing: st.DataObject) -> None:
    again = drawing.draw(st.permutations([*facts, *facts]))
    before, after = sum_of(facts), sum_of(again)
    assert [before.refusal(name) for name in ("o/a", "o/b", "o/c")] == [
        after.refusal(name) for name in ("o/a", "o/b", "o/c")
    ]
    assert before.state is after.state
