"""What the simulated GitHub sends is what GitHub publishes, signed, in order, and never twice by itself."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from tests.contract.github.places import SECRET, Place, PlayedRunner, Received, app_jwt, until
from tests.contract.store_rows import a_job
from webhook.deliveries import read
from workers.clock import SystemClock
from workers.domain.errors import Refused
from workers.domain.events import JobFact
from workers.domain.pools import Origin
from workers.planning.facts import is_waiting
from workers.reconcilers.origins import Origins
from workers.rehearsal.github.contract import Broken, check_delivery, published

LABELS = ["self-hosted", "spot-runner"]
STEPS = [("one", "true"), ("two", "true")]
ASKED_OF_RUN = "GET /repos/<owner>/<repo>/actions/runs/<int:run_id>"
RECORDED = [(event, sample) for event, samples in published("deliveries").items() for sample in samples]


def is_old(sample: dict[str, Any]) -> bool:
    """Say whether it was recorded when an installation's moments were numbers yet, before GitHub described it so."""
    return isinstance(sample.get("installation", {}).get("updated_at"), int)


# Recorded in June 2021, before GitHub sent these four.
TOO_OLD = {"run_attempt", "workflow_name", "head_branch", "created_at"}


@pytest.mark.parametrize(
    ("event", "sample"), [pair for pair in RECORDED if "2021-06-15" not in json.dumps(pair[1]) and not is_old(pair[1])]
)
def test_each_recorded_delivery_fits_the_published_schema(event: str, sample: dict[str, Any]) -> None:
    check_delivery(event, sample)


def test_the_one_recorded_delivery_that_does_not_fit_is_older_than_the_schema() -> None:
    (event, sample), *more = [pair for pair in RECORDED if "2021-06-15" in json.dumps(pair[1])]
    assert not more
    with pytest.raises(Broken) as caught:
        check_delivery(event, sample)
    assert {word for word in TOO_OLD if f"'{word}' is a required property" in str(caught.value)} == TOO_OLD
    assert str(caught.value).count("required property") == len(TOO_OLD)


def test_recorded_deliveries_of_installations_are_older_than_the_schema_but_for_two() -> None:
    fitting = [sample["action"] for event, sample in RECORDED if "installation" in event and not is_old(sample)]
    assert sorted(fitting) == ["suspend", "unsuspend"]
    for event, sample in RECORDED:
        if is_old(sample):
            with pytest.raises(Broken, match=r"updated_at: [0-9]+ is not of type 'string'"):
                check_delivery(event, sample)


def test_every_change_of_an_installation_is_told_in_published_words_and_then_the_app_is_refused(place: Place) -> None:
    account = place.repository.split("/")[0]
    assert place.control.install(account, is_told=True) == place.installation
    port = place.port()
    port.register(place.installation, place.repository, "spot-runner-a", LABELS)
    for change, repositories in (
        ("removed", [place.repository]),
        ("added", [place.repository]),
        ("suspend", []),
        ("unsuspend", []),
        ("remove", []),
    ):
        place.control.change_installation(account, change, repositories)
        if change in {"removed", "suspend", "remove"}:
            with pytest.raises(Refused):
                place.port().register(place.installation, place.repository, "spot-runner-b", LABELS)
            with pytest.raises(Refused):
                port.register(place.installation, place.repository, "spot-runner-b", LABELS)
        else:
            port.register(place.installation, place.repository, "spot-runner-b", LABELS)
    until(lambda: len(told_of(place)) == 6, "one delivery for each change")
    assert [one.payload["action"] for one in told_of(place)] == [
        *("created", "removed", "added", "suspend", "unsuspend", "deleted"),
    ]


def told_of(place: Place) -> list[Received]:
    return [
        one
        for one in place.receiver.received
        if "workflow_job" not in one.payload and one.payload["installation"]["id"] == place.installation
    ]


def test_seven_recorded_deliveries_of_jobs_fit() -> None:
    """So that the test above cannot pass on nothing."""
    jobs = [sample for event, sample in RECORDED if event == "workflow_job"]
    assert len(jobs) == 8
    assert {sample["action"] for sample in jobs} == {"queued", "waiting", "in_progress", "completed"}


def test_a_payload_that_lacks_a_field_is_caught() -> None:
    sample = json.loads(json.dumps(next(sample for event, sample in RECORDED if sample.get("action") == "waiting")))
    del sample["workflow_job"]["run_attempt"]
    with pytest.raises(Broken, match="run_attempt"):
        check_delivery("workflow_job", sample)


def test_a_jobs_life_is_told_in_order_in_published_words(place: Place) -> None:
    job_id = place.control.start_jobs(place.repository, LABELS, STEPS)[0]
    registration = place.port().register(place.installation, place.repository, "spot-runner-a", LABELS)
    runner = PlayedRunner(place, registration.jit_config)
    runner.taking()
    runner.say(job_id, 0, {"kind": "started", "step": 1}, {"kind": "ended", "step": 1, "conclusion": "failure"})
    runner.finish(job_id, "failure")

    until(lambda: len(place.receiver.of_job(job_id)) == 3, "three deliveries")
    deliveries = place.receiver.of_job(job_id)
    assert [one.payload["action"] for one in deliveries] == ["queued", "in_progress", "completed"]
    for one in deliveries:
        check_delivery("workflow_job", one.payload)
        assert one.payload["repository"]["full_name"] == place.repository
        assert one.payload["installation"]["id"] == place.installation
    queued, started, completed = (one.payload["workflow_job"] for one in deliveries)
    assert (queued["runner_id"], queued["labels"], queued["steps"]) == (None, LABELS, [])
    assert (started["runner_id"], started["runner_name"]) == (registration.github_id, "spot-runner-a")
    assert (completed["runner_id"], completed["conclusion"]) == (registration.github_id, "failure")
    assert [step["conclusion"] for step in completed["steps"]] == ["failure", "skipped"]


def test_what_is_held_back_and_approved_is_told_with_the_deployments_moments(place: Place) -> None:
    """`created_at` is the same in all of them; only the deployment says which came last."""
    (job_id,) = place.control.start_held(place.repository, LABELS, STEPS)
    next_second = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=1)
    until(lambda: datetime.now(UTC) >= next_second, "the next second")
    place.control.approve(job_id)
    told = until(lambda: len(place.receiver.of_job(job_id)) == 3 and place.receiver.of_job(job_id), "all is told")
    assert told
    assert [one.payload["action"] for one in told] == ["queued", "waiting", "queued"]
    for one in told:
        check_delivery("workflow_job", one.payload)
        assert one.payload["workflow_job"]["status"] == one.payload["action"]
        assert one.payload["deployment"]["environment"] == "production"
    assert len({one.payload["workflow_job"]["created_at"] for one in told}) == 1
    queued, held, approved = (fact_of(one) for one in told)
    assert is_waiting([queued, held]) is not False, "in one second nobody can tell"
    assert is_waiting([approved, held, queued]) is False, "in whatever order they come"


def fact_of(one: Received) -> JobFact:
    """Return what our receiver reads in it."""
    fact = read(httpx.Headers(one.headers), one.body, datetime.now(UTC)).fact
    assert fact is not None
    return fact


def test_what_nothing_holds_back_cannot_be_held_or_approved(place: Place) -> None:
    plain, deploying = (
        place.control.start_jobs(place.repository, LABELS, STEPS, environment=where)[0]
        for where in (None, "production")
    )
    for job_id, change in ((plain, "hold"), (plain, "approve"), (deploying, "approve")):
        assert place.http.post(f"{place.url}/_simulator/jobs/{job_id}/{change}").status_code == 409
    place.control.hold_back(deploying)
    place.control.cancel(deploying)
    assert place.http.post(f"{place.url}/_simulator/jobs/{deploying}/approve").status_code == 409
    assert place.control.job(deploying)["conclusion"] == "cancelled"


def test_a_job_of_a_private_repository_says_so_and_where_it_comes_from_need_not_be_asked(place: Place) -> None:
    place.control.make_private(place.repository)
    (job_id,) = place.control.start_jobs(place.repository, LABELS, STEPS)
    (told,) = until(lambda: place.receiver.of_job(job_id), "it is told")
    check_delivery("workflow_job", told.payload)
    fact = fact_of(told)
    assert fact.is_public is False
    asked = place.control.admitted().get(ASKED_OF_RUN, 0)
    job = replace(a_job(), installation_id=place.installation, repository=place.repository, run_id=fact.run_id)
    origins = Origins(place.port(), SystemClock(), lambda: True)
    assert origins.of(job, [fact]) == Origin(place.repository)
    assert place.control.admitted().get(ASKED_OF_RUN, 0) == asked
    # Its deliveries were lost, and GitHub is asked.
    assert origins.of(job, []) == Origin(place.repository)
    assert place.control.admitted()[ASKED_OF_RUN] == asked + 1
    (here,) = place.ask("GET", "/installation/repositories", place.token()).json()["repositories"]
    assert (here["full_name"], here["private"]) == (place.repository, True)


def test_each_delivery_is_signed_and_named(place: Place) -> None:
    job_id = place.control.start_jobs(place.repository, LABELS, STEPS)[0]
    until(lambda: place.receiver.of_job(job_id), "a delivery")
    (one,) = place.receiver.of_job(job_id)
    expected = hmac.new(SECRET.encode(), one.body, hashlib.sha256).hexdigest()
    assert one.headers["x-hub-signature-256"] == f"sha256={expected}"
    assert one.headers["x-github-event"] == "workflow_job"
    assert one.headers["user-agent"].startswith("GitHub-Hookshot/")
    headers = published("webhooks")["webhooks"]["workflow-job-queued"]["post"]["parameters"]
    assert {each["name"].lower() for each in headers} <= set(one.headers)


def test_a_failed_delivery_is_listed_and_sent_again_only_when_asked(place: Place) -> None:
    place.receiver.statuses.put(503)
    job_id = place.control.start_jobs(place.repository, LABELS, STEPS)[0]
    until(lambda: tried(place, job_id, 1), "the delivery is listed")
    failed = tried(place, job_id, 1)[0]
    assert failed["status_code"] == 503
    listed = place.ask("GET", "/app/hook/deliveries?per_page=100", app_jwt()).json()
    assert next(one["status"] for one in listed if one["id"] == failed["id"]) != "OK"

    assert place.ask("POST", f"/app/hook/deliveries/{failed['id']}/attempts", app_jwt()).status_code == 202
    until(lambda: tried(place, job_id, 2), "the redelivery is listed")
    first, second = tried(place, job_id, 2)
    assert (second["status_code"], second["redelivery"]) == (202, True)
    assert second["guid"] == first["guid"]
    guids = {one.headers["x-github-delivery"] for one in place.receiver.of_job(job_id)}
    assert guids == {first["guid"]}


def tried(place: Place, job_id: int, number: int) -> list[dict[str, Any]]:
    """Return the tries to deliver of this job, empty until there are so many."""
    found = [one for one in place.control.deliveries() if one["job_id"] == job_id and one["delivered_at"]]
    return found if len(found) == number else []


def test_a_rerun_tells_the_end_of_the_earlier_attempt_once_more(place: Place) -> None:
    job_id = place.control.start_jobs(place.repository, LABELS, STEPS)[0]
    place.control.cancel(job_id)
    run_id = place.control.job(job_id)["run_id"]
    place.port().rerun_failed(place.installation, place.repository, run_id)
    again = place.control.job(job_id)["attempts"][1]["id"]
    until(lambda: place.receiver.of_job(again), "the second attempt is told")
    assert place.receiver.actions_of(job_id) == ["queued", "completed", "completed"]
    (queued,) = place.receiver.of_job(again)
    assert queued.payload["workflow_job"]["run_attempt"] == 2
    assert queued.payload["workflow_job"]["run_id"] == run_id
