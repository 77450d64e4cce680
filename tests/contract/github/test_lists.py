"""What every implementation of `listing.GitHubLists` promises, and what the real one costs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from github.Requester import Requester
from structlog.testing import capture_logs

from tests.contract.github.places import APP_ID, Place, app_key, until
from tests.contract.github.sides import Side
from workers.domain.errors import NotThere, Refused, Throttled
from workers.domain.listed import DeliveryPage, JobListed, RunnerListed, Scope
from workers.github.calls import Calls
from workers.github.lists import PAGES_MAX, PER_PAGE, REPOSITORIES_MAX, Lists, older_cursor
from workers.github.login import Login, Token

LABELS = ("self-hosted", "spot-runner")


def scope(side: Side) -> Scope:
    return Scope(side.installation, side.repository)


def test_the_unfinished_runs_and_their_jobs_are_listed(side: Side) -> None:
    queued, queued_run = side.queue_job(LABELS)
    started, started_run = side.queue_job(("other", "labels"))
    registration = side.register("spot-runner-a", ("other", "labels"))
    assert side.take_job(registration) == started
    assert sorted(side.lists.unfinished_runs(scope(side))) == sorted((queued_run, started_run))
    (waiting,) = side.lists.all_jobs(scope(side), queued_run)
    expected = JobListed(queued, queued_run, 1, waiting.name, LABELS, "queued", None, None, None)
    assert replace(waiting, head_sha=None, head_branch=None) == expected
    assert (len(waiting.head_sha or ""), waiting.head_branch) == (40, "main")
    (running,) = side.lists.all_jobs(scope(side), started_run)
    assert (running.status, running.runner_id, running.runner_name) == (
        *("in_progress", registration.github_id, "spot-runner-a"),
    )
    side.end_job(started, registration, "success")
    assert side.lists.unfinished_runs(scope(side)) == [queued_run]
    (over,) = side.lists.all_jobs(scope(side), started_run)
    assert (over.status, over.conclusion) == ("completed", "success")


def test_a_run_with_a_job_that_waits_is_unfinished(side: Side) -> None:
    job, run = side.queue_deploying(LABELS)
    for change in (side.hold_back, side.approve):
        change(job)
        assert side.lists.unfinished_runs(scope(side)) == [run]
        assert not side.lists.finished_runs(scope(side), side.next_second() - timedelta(hours=1))


def test_runs_that_have_ended_since_a_moment_are_listed_and_no_others(side: Side) -> None:
    first = finished(side, "spot-runner-a")
    between = side.next_second()
    second = finished(side, "spot-runner-b")
    side.queue_job(LABELS)
    [(run_id, ended_at)] = side.lists.finished_runs(scope(side), between).items()
    assert (run_id, ended_at >= between) == (second, True)
    ended = side.lists.finished_runs(scope(side), between - timedelta(hours=1))
    assert list(ended) == [second, first]
    assert ended[first] < between


def finished(side: Side, name: str) -> int:
    """Let a run of one job come to its end."""
    job, run = side.queue_job(LABELS)
    registration = side.register(name, LABELS)
    assert side.take_job(registration) == job
    side.end_job(job, registration, "success")
    return run


def test_the_jobs_of_every_attempt_are_listed(side: Side) -> None:
    job, run = side.queue_job(LABELS)
    registration = side.register("spot-runner-a", LABELS)
    side.take_job(registration)
    side.end_job(job, registration, "failure")
    side.port.rerun_failed(side.installation, side.repository, run)
    seen = {one.run_attempt: one.status for one in side.lists.all_jobs(scope(side), run)}
    assert seen == {1: "completed", 2: "queued"}


def test_registrations_say_which_are_busy(side: Side) -> None:
    side.queue_job(LABELS)
    busy, idle = side.register("spot-runner-a", LABELS), side.register("spot-runner-b", LABELS)
    side.take_job(busy)
    assert sorted(side.lists.registrations(scope(side)), key=lambda one: one.name) == [
        RunnerListed(busy.github_id, "spot-runner-a", is_busy=True),
        RunnerListed(idle.github_id, "spot-runner-b", is_busy=False),
    ]
    side.port.deregister(side.installation, side.repository, idle.github_id)
    assert [one.name for one in side.lists.registrations(scope(side))] == ["spot-runner-a"]


def test_the_repositories_of_the_installations_are_listed(side: Side) -> None:
    side.queue_job(LABELS)
    (app,) = side.lists.apps
    assert scope(side) in side.lists.repositories(app)


def test_the_installations_are_listed(side: Side) -> None:
    (app,) = side.lists.apps
    (here,) = [one for one in side.lists.installations(app) if one.id == side.installation]
    assert (here.account, here.is_suspended) == (side.repository.partition("/")[0], False)
    assert here.said_at.tzinfo is not None


def test_where_github_knows_of_nothing_there_are_no_runs_and_no_word_on_registrations(side: Side) -> None:
    nowhere = Scope(side.installation, "nobody/nothing")
    assert list(side.lists.unfinished_runs(nowhere)) == []
    assert list(side.lists.all_jobs(nowhere, 4)) == []
    with pytest.raises(NotThere):  # where there is none that is busy microVMs are ended
        side.lists.registrations(nowhere)


def test_a_delivery_that_failed_is_listed_and_sent_again_when_asked(side: Side) -> None:
    guid = side.undelivered(LABELS)
    (first,) = tries_of(side, guid)
    assert not first.is_ok
    side.lists.redeliver(first.app, first.id)
    side.deliver_all()
    until(lambda: len(tries_of(side, guid)) == 2, "the second try is listed")
    second, earlier = tries_of(side, guid)
    assert (second.is_ok, earlier) == (True, first)
    assert second.delivered_at >= first.delivered_at


def deliveries(side: Side, cursor: str | None = None) -> DeliveryPage:
    (app,) = side.lists.apps
    return side.lists.deliveries(app, cursor)


def tries_of(side: Side, guid: str) -> list[Any]:
    return [one for one in deliveries(side).tries if one.guid == guid]


def test_a_delivery_that_github_does_not_know_any_more_is_none_of_our_concern(side: Side) -> None:
    (app,) = side.lists.apps
    side.lists.redeliver(app, 999_999_999)


def test_older_deliveries_are_found_by_the_cursor(side: Side) -> None:
    for _ in range(PER_PAGE + 1):
        side.queue_job(LABELS)
    side.deliver_all()
    until(lambda: deliveries(side).older, "a second page")
    page = deliveries(side)
    assert len(page.tries) == PER_PAGE
    older = deliveries(side, page.older)
    assert older.tries
    assert max(one.delivered_at for one in older.tries) <= min(one.delivered_at for one in page.tries)
    assert not {one.id for one in older.tries} & {one.id for one in page.tries}


# ---------------------------------------------------------------- the real one alone


def test_an_organizations_registrations_are_listed_too(place: Place) -> None:
    wish = {"name": "spot-runner-o", "runner_group_id": 1, "labels": ["spot-runner"]}
    path = f"/orgs/{place.owner}/actions/runners/generate-jitconfig"
    assert place.ask("POST", path, place.token(), wish).status_code == 201
    (one,) = place.port().lists.registrations(Scope(place.installation, place.owner))
    assert one.name == "spot-runner-o"


class CountingLogin(Login):
    """Remembers what each answer was."""

    def __init__(self, url: str) -> None:
        super().__init__(url, APP_ID, app_key()[0])
        self.statuses: list[int] = []

    def as_installation(self, installation_id: int, fetch: Callable[[], Token]) -> Requester:
        client = super().as_installation(installation_id, fetch)
        ask = type(client).requestJson

        def counted(*args: object) -> tuple[int, dict[str, Any], str]:
            answer: tuple[int, dict[str, Any], str] = ask(client, *args)  # type: ignore[arg-type]  # as they came
            self.statuses.append(answer[0])
            return answer

        return cast("Requester", SimpleNamespace(requestJson=counted, createException=client.createException))


def test_what_has_not_changed_costs_nothing_to_read_again(place: Place) -> None:
    place.control.start_jobs(place.repository, LABELS, [("one", "true")])
    login, here = CountingLogin(place.url), Scope(place.installation, place.repository)
    lists = Lists(Calls([login]))
    first = lists.unfinished_runs(here)
    assert lists.unfinished_runs(here) == first
    assert login.statuses == [200] * 5 + [304] * 5
    place.control.start_jobs(place.repository, LABELS, [("one", "true")])
    assert len(lists.unfinished_runs(here)) == 2
    assert login.statuses[10:] == [304, 304, 304, 200, 304], "only of those that are queued there are more"
    lists.unfinished_runs(here, is_quiet=True)
    assert login.statuses[15:] == [304, 304, 304], "fewer questions, and none that was not asked before"


class ScriptedLogin(Login):
    """Has each page of every list hold what `rows` says; nothing has an end if it says so."""

    def __init__(self, rows: Callable[[str, int], object], headers: dict[str, str], status: int = 200) -> None:
        super().__init__("http://127.0.0.1:9", APP_ID, app_key()[0])
        self._status = status
        self.asked: list[dict[str, Any]] = []
        self._rows, self._headers = rows, headers

    def as_installation(self, installation_id: int, fetch: Callable[[], Token]) -> Requester:
        return self.as_app()

    def as_app(self) -> Requester:
        def answered(_verb: str, path: str, parameters: dict[str, Any], *_: object) -> tuple[int, dict[str, str], str]:
            self.asked.append(parameters)
            return self._status, self._headers, json.dumps(self._rows(path, parameters["page"]))

        return cast("Requester", SimpleNamespace(requestJson=answered))


def full_page(page: int) -> list[dict[str, Any]]:
    numbers = range(PER_PAGE * page, PER_PAGE * (page + 1))
    return [{"id": number, "name": "n", "busy": False, "full_name": f"o/{number}"} for number in numbers]


@pytest.mark.parametrize(
    ("is_quiet", "statuses"),
    [
        (False, ["requested", "pending", "waiting", "queued", "in_progress"]),
        (True, ["waiting", "queued", "in_progress"]),
    ],
)
def test_a_run_that_comes_up_while_runs_are_listed_is_listed_once(*, is_quiet: bool, statuses: list[str]) -> None:
    """GitHub lists runs of one status at a time, so one that moves on may be in several lists."""
    login = ScriptedLogin(lambda *_: {"workflow_runs": [{"id": 8}]}, {})
    assert Lists(Calls([login])).unfinished_runs(Scope(1, "a/b"), is_quiet=is_quiet) == [8]
    assert [one["status"] for one in login.asked] == statuses


def test_an_app_that_github_does_not_know_has_no_list_of_installations() -> None:
    """An empty one would say that it was removed from everywhere."""
    login = ScriptedLogin(lambda *_: {"message": "Integration not found"}, {}, status=404)
    with pytest.raises(Refused):
        Lists(Calls([login])).installations(APP_ID)


def test_as_many_registrations_as_github_allows_are_read() -> None:
    login = ScriptedLogin(lambda _, page: {"runners": full_page(page) if page <= 100 else []}, {})
    assert len(Lists(Calls([login])).registrations(Scope(1, "a/b"))) == 10_000


def test_a_list_without_an_end_is_read_to_a_bound_and_is_no_answer() -> None:
    login = ScriptedLogin(lambda _, page: {"runners": full_page(page)}, {})
    with pytest.raises(Refused, match="more than"):
        Lists(Calls([login])).registrations(Scope(1, "a/b"))
    assert [one["page"] for one in login.asked] == list(range(1, PAGES_MAX + 1))


@pytest.mark.parametrize(("last_page", "is_told"), [(20, False), (21, True)])
def test_repositories_are_read_to_a_bound_and_more_are_told_of(last_page: int, *, is_told: bool) -> None:
    def rows(path: str, page: int) -> object:
        if path == "/app/installations":
            return [{"id": 1, "suspended_at": None}]
        return {"repositories": full_page(page) if page <= last_page else []}

    with capture_logs() as logs:
        found = Lists(Calls([ScriptedLogin(rows, {})])).repositories(APP_ID)
    assert len(set(found)) == REPOSITORIES_MAX
    assert [one["event"] for one in logs] == ["repositories_unread"] * is_told


def test_what_is_left_of_the_hour_is_what_the_last_answer_said() -> None:
    login = ScriptedLogin(lambda *_: {"runners": []}, {"x-ratelimit-limit": "5000", "x-ratelimit-remaining": "1250"})
    lists = Lists(Calls([login]))
    assert lists.left(1) == 1.0
    lists.registrations(Scope(1, "a/b"))
    assert (lists.left(1), lists.left(2)) == (0.25, 1.0)


def test_a_rate_limit_is_told_as_one(place: Place) -> None:
    place.control.plant("secondary", "GET", f"/repos/{place.repository}/actions/runners")
    with pytest.raises(Throttled):
        place.port().lists.registrations(Scope(place.installation, place.repository))


@pytest.mark.parametrize(
    ("link", "cursor"),
    [
        ("", None),
        ('<https://api.github.com/app/hook/deliveries?per_page=100&cursor=v1_17>; rel="next"', "v1_17"),
        ('<https://x/y?cursor=a>; rel="prev", <https://x/y?cursor=b>; rel="next"', "b"),
        ('<https://x/y?cursor=a>; rel="prev"', None),
    ],
)
def test_the_cursor_is_that_of_the_next_page(link: str, cursor: str | None) -> None:
    assert older_cursor(link) == cursor
