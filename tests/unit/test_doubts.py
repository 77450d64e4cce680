"""For how long a refusal of GitHub's is taken for a slip."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.fakes.clock import FakeClock
from workers.domain.errors import NotThere, Refused, TryLater, Unrecognized
from workers.reconcilers.doubts import DOUBT_LIMIT, Doubts

MINUTE = timedelta(minutes=1)


class Rig:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.doubts = Doubts(self.clock)

    def ask(self, error: Exception | None, question: str = "one") -> type[Exception] | None:
        """Return what a question ends with that is answered by this."""
        try:
            with self.doubts.given(question):
                if error is not None:
                    raise error
        except (Refused, TryLater) as raised:
            return type(raised)
        return None

    def refused_for(self, span: timedelta, question: str = "one") -> None:
        """Let all answers be such a refusal for so long."""
        end = self.clock.now() + span
        while self.clock.now() < end:
            assert self.ask(NotThere("404"), question) is TryLater
            self.clock.move(MINUTE)


@pytest.fixture
def rig() -> Rig:
    return Rig()


@pytest.mark.parametrize("error", [NotThere("404"), Unrecognized("401")])
def test_it_is_believed_after_half_an_hour_of_nothing_else(rig: Rig, error: Refused) -> None:
    rig.refused_for(DOUBT_LIMIT)
    assert rig.ask(error) is type(error)


def test_what_was_answered_is_said(rig: Rig) -> None:
    with pytest.raises(TryLater, match="Bad credentials"), rig.doubts.given("one"):
        raise Unrecognized("401, Bad credentials")


def test_any_other_refusal_is_believed_at_once(rig: Rig) -> None:
    assert rig.ask(Refused("403")) is Refused


def test_another_question_is_in_doubt_by_itself(rig: Rig) -> None:
    rig.refused_for(DOUBT_LIMIT)
    assert rig.ask(NotThere("404"), "other") is TryLater
    assert rig.ask(NotThere("404")) is NotThere


def test_an_answer_ends_the_doubt(rig: Rig) -> None:
    rig.refused_for(DOUBT_LIMIT - MINUTE)
    assert rig.ask(None) is None
    rig.refused_for(DOUBT_LIMIT)
    assert rig.ask(NotThere("404")) is NotThere


def test_no_answer_at_all_changes_nothing(rig: Rig) -> None:
    rig.refused_for(DOUBT_LIMIT)
    assert rig.ask(TryLater("503")) is TryLater
    assert rig.ask(NotThere("404")) is NotThere


def test_a_refusal_of_long_ago_counts_for_nothing(rig: Rig) -> None:
    """Somebody else was answered meanwhile, or nobody asked."""
    rig.refused_for(MINUTE)
    rig.clock.move(DOUBT_LIMIT)
    rig.refused_for(DOUBT_LIMIT)
    assert rig.ask(NotThere("404")) is NotThere
