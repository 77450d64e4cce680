from __future__ import annotations

from datetime import timedelta

import pytest

from tests.unit.test_installation import START, a_fact, sum_of
from workers.domain.installation import InstallationAction, InstallationFact, InstallationState, heard
from workers.domain.listed import InstallationListed
from workers.planning.installed import back, gone, is_doubtful, word

_A = InstallationAction
LATER = START + timedelta(minutes=9)
SUSPENDED = a_fact(_A.SUSPEND, 1)
TAKEN_OUT = a_fact(_A.REMOVED, 1, removed=("octo/hello",))


def listed(minute: int, *, is_suspended: bool = False) -> InstallationListed:
    return InstallationListed(7, "octo", START + timedelta(minutes=minute), is_suspended, takes_all=False)


@pytest.mark.parametrize("minute", [1, 2])
@pytest.mark.parametrize("told", [SUSPENDED, TAKEN_OUT])
def test_what_was_lifted_without_a_word_is_said_once(told: InstallationFact, minute: int) -> None:
    """Also where GitHub's date has stood still, as it does in its own recorded `unsuspend`."""
    row = sum_of([told])
    said = word(listed(minute), ["octo/hello"], row, LATER)
    assert said is not None
    assert said.installation is not None
    after = heard(row, said.installation)
    assert after.refusal("octo/hello") is None
    assert word(listed(minute), ["octo/hello"], after, LATER + timedelta(minutes=1)) is None


@pytest.mark.parametrize("told", [SUSPENDED, TAKEN_OUT])
def test_a_list_that_is_older_than_what_was_told_says_nothing(told: InstallationFact) -> None:
    assert word(listed(0), ["octo/hello"], sum_of([told]), LATER) is None


def test_a_repository_that_is_not_listed_stays_as_it_was_told() -> None:
    assert word(listed(2), [], sum_of([TAKEN_OUT]), LATER) is None
    assert word(listed(2), [], sum_of([a_fact(_A.ADDED, 1, added=("octo/hello",))]), LATER) is None


def test_a_suspension_of_which_nobody_told_is_heard_and_a_removed_installation_stays_removed() -> None:
    said = word(listed(2, is_suspended=True), [], sum_of([a_fact(_A.CREATED, 1)]), LATER)
    assert said is not None
    assert said.installation is not None
    assert heard(None, said.installation).state is InstallationState.SUSPENDED
    assert word(listed(2), [], sum_of([a_fact(_A.DELETED, 1)]), LATER) is None


def test_a_suspension_where_nobody_told_of_anything_is_heard_and_all_being_well_is_not_worth_a_word() -> None:
    said = word(listed(2, is_suspended=True), [], None, LATER)
    assert said is not None
    assert said.installation is not None
    row = heard(None, said.installation)
    assert row.state is InstallationState.SUSPENDED
    assert word(listed(2, is_suspended=True), [], row, LATER) is None
    assert word(listed(2), [], None, LATER) is None


@pytest.mark.parametrize("told", [None, a_fact(_A.CREATED, 1), SUSPENDED])
def test_what_is_missing_in_the_list_is_doubtful_until_it_is_said_to_be_removed(told: InstallationFact | None) -> None:
    row = None if told is None else sum_of([told])
    assert not is_doubtful(row, is_listed=True)
    assert is_doubtful(row, is_listed=False)
    said = gone(7, "octo", LATER)
    assert said.installation is not None
    after = heard(row, said.installation)
    assert after.state is InstallationState.REMOVED
    assert not is_doubtful(after, is_listed=False)


@pytest.mark.parametrize("is_suspended", [False, True])
def test_what_was_taken_for_removed_and_is_listed_is_back_and_may_be_suspended_later(*, is_suspended: bool) -> None:
    said = gone(7, "octo", LATER)
    assert said.installation is not None
    row = heard(sum_of([a_fact(_A.CREATED, 1)]), said.installation)
    assert is_doubtful(row, is_listed=True)
    again = back(listed(2, is_suspended=is_suspended), LATER + timedelta(minutes=10))
    assert again.installation is not None
    after = heard(row, again.installation)
    assert after.state is (InstallationState.SUSPENDED if is_suspended else InstallationState.ACTIVE)
    assert not is_doubtful(after, is_listed=True)
    assert word(listed(3, is_suspended=not is_suspended), [], after, LATER + timedelta(minutes=20)) is not None
