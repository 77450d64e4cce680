from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from workers.domain.events import Event, Happening
from workers.domain.names import HostId, JobId, MigrationId, RunnerId
from workers.rehearsal.follow import SENTENCES, Follower, StepWatch, steps_over, told

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class GrowingTimeline:
    """Keeps what is appended, as the store does."""

    def __init__(self) -> None:
        self.entries: list[Event] = []

    def timeline(self, after: int = 0) -> list[tuple[int, Event]]:
        return [(number, entry) for number, entry in enumerate(self.entries, start=1) if number > after]


def test_everything_that_can_happen_has_a_sentence_and_no_blank_is_left_in_it() -> None:
    assert set(SENTENCES) == set(Happening)
    for happening in Happening:
        ids: dict[str, Any] = {
            "job_id": JobId(7), "runner_id": RunnerId("r"), "host_id": HostId("h"), "migration_id": MigrationId("m"),
        }  # fmt: skip
        line = told(Event(happening, NOW, **ids)).plain
        assert not set("{}") & set(line), line


def test_a_line_names_what_it_is_about_and_what_else_is_known() -> None:
    entry = Event(
        Happening.HOST_NOTICE, NOW, host_id=HostId("spot-host-a"), detail={"seconds_left": 59.25, "empty": None}
    )
    assert told(entry).plain == "spot-host-a has seen the notice  seconds_left 59.2"


def test_each_entry_is_told_once() -> None:
    timeline = GrowingTimeline()
    follower = Follower(timeline)
    timeline.entries.append(Event(Happening.HOST_READY, NOW, host_id=HostId("a")))
    assert len(follower.fresh()) == 1
    timeline.entries.append(Event(Happening.HOST_READY, NOW, host_id=HostId("b")))
    assert [entry.host_id for entry in follower.fresh()] == ["b"]
    assert follower.fresh() == []
    assert follower.count(Happening.HOST_READY) == 2
    assert follower.has(Happening.HOST_READY, host_id="a")
    assert not follower.has(Happening.HOST_READY, host_id="c")


def step(number: int, starts: int, conclusion: str | None) -> dict[str, Any]:
    return {"number": number, "name": f"step {number}", "starts": starts, "conclusion": conclusion}


def test_a_step_is_told_when_it_begins_and_when_it_ends() -> None:
    watch = StepWatch()
    assert list(watch.fresh({"id": 1, "steps": [step(1, 0, None)]})) == []
    (begun,) = watch.fresh({"id": 1, "steps": [step(1, 1, None)]})
    assert begun.plain.endswith("begins")
    assert list(watch.fresh({"id": 1, "steps": [step(1, 1, None)]})) == []
    ended, begun = watch.fresh({"id": 1, "steps": [step(1, 1, "success"), step(2, 1, None)]})
    assert ended.plain.endswith("ends: success")
    assert steps_over({"steps": [step(1, 1, "success"), step(2, 1, None)]}) == 1
