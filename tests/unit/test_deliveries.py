from __future__ import annotations

import copy
import json
from datetime import UTC, datetime
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from webhook import deliveries
from workers.domain.errors import BadInput
from workers.domain.events import JobAction
from workers.rehearsal.github.contract import Broken, check_delivery, published

NOW = datetime(2026, 11, 23, 4, tzinfo=UTC)
RECORDED: list[dict[str, Any]] = published("deliveries")["workflow_job"]
QUEUED = next(one for one in RECORDED if one["action"] == "queued" and one["workflow_job"]["runner_id"] is None)
# What we read of an event, as paths into it.
USED = [
    ("action",),
    ("repository",),
    ("repository", "full_name"),
    ("workflow_job",),
    *(
        ("workflow_job", name)
        for name in ("id", "run_id", "run_attempt", "name", "labels", "runner_id", "runner_name", "conclusion")
    ),
]


def headers(event: str = "workflow_job", guid: str = "3aa5e040-1c4f-11ef-8f3f-d8f9e2ab3c55") -> dict[str, str]:
    return {"X-GitHub-Event": event, "X-GitHub-Delivery": guid, "Content-Type": "application/json"}


def is_lawful(payload: dict[str, Any]) -> bool:
    try:
        check_delivery("workflow_job", payload)
    except Broken:
        return False
    return True


@pytest.mark.parametrize("payload", [one for one in RECORDED if is_lawful(one)])
def test_every_recorded_delivery_that_keeps_github_s_schema_is_read(payload: dict[str, Any]) -> None:
    payload = {**payload, "installation": {"id": 7}}
    fact = deliveries.read(headers(), json.dumps(payload).encode(), NOW).fact
    assert fact is not None
    job = payload["workflow_job"]
    assert (fact.job_id, fact.run_attempt, fact.labels) == (job["id"], job["run_attempt"], tuple(job["labels"]))
    assert (fact.runner_id, fact.runner_name, fact.conclusion) == (
        job["runner_id"],
        job["runner_name"],
        job["conclusion"],
    )
    assert (fact.installation_id, fact.repository) == (7, payload["repository"]["full_name"])


def test_one_recorded_delivery_is_older_than_the_schema_and_is_refused() -> None:
    old = [one for one in RECORDED if not is_lawful(one)]
    assert len(old) == 1
    with pytest.raises(BadInput, match=r"workflow_job\.run_attempt: Field required"):
        deliveries.read(headers(), json.dumps(old[0]).encode(), NOW)


@pytest.mark.parametrize("path", USED)
def test_a_missing_field_that_we_read_is_named(path: tuple[str, ...]) -> None:
    payload = copy.deepcopy(QUEUED)
    place = payload
    for name in path[:-1]:
        place = place[name]
    del place[path[-1]]
    with pytest.raises(BadInput, match=r"\.".join(path)):
        deliveries.read(headers(), json.dumps(payload).encode(), NOW)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("workflow_job", "id"), "5"),
        (("workflow_job", "id"), 5.5),
        (("workflow_job", "id"), True),
        (("workflow_job", "id"), 0),
        (("workflow_job", "id"), 1 << 63),
        (("workflow_job", "run_attempt"), None),
        (("workflow_job", "run_attempt"), 1 << 31),
        (("workflow_job", "labels"), "spot-runner"),
        (("workflow_job", "labels"), [1]),
        (("workflow_job", "labels"), ["x"] * 101),
        (("workflow_job", "name"), "a\x00b"),
        (("workflow_job", "name"), "x" * 1025),
        (("workflow_job", "runner_id"), -1),
        (("workflow_job", "conclusion"), 1),
        (("repository", "full_name"), "no-owner"),
        (("repository", "full_name"), "a/b/c"),
        (("installation", "id"), "7"),
        (("action",), None),
        (("action",), 1),
    ],
)
def test_a_wrong_value_is_refused_and_its_field_named(path: tuple[str, ...], value: object) -> None:
    payload = copy.deepcopy(QUEUED)
    place = payload
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    with pytest.raises(BadInput, match=r"\.".join(path)):
        deliveries.read(headers(), json.dumps(payload).encode(), NOW)


def test_a_runner_that_is_not_there_yet_is_none() -> None:
    payload = copy.deepcopy(QUEUED)
    payload["workflow_job"] |= {"runner_id": 0, "runner_name": ""}
    fact = deliveries.read(headers(), json.dumps(payload).encode(), NOW).fact
    assert fact is not None
    assert (fact.runner_id, fact.runner_name) == (None, None)


def test_an_action_that_github_may_invent_is_kept_without_a_fact() -> None:
    delivery = deliveries.read(headers(), json.dumps({**QUEUED, "action": "requeued"}).encode(), NOW)
    assert (delivery.fact, delivery.action) == (None, "requeued")


def test_a_delivery_without_an_installation_is_kept_without_a_fact() -> None:
    """It keeps the schema, but is none of an App's, so there is nothing that we may do."""
    payload = {name: value for name, value in QUEUED.items() if name != "installation"}
    assert is_lawful(payload)
    assert deliveries.read(headers(), json.dumps(payload).encode(), NOW).fact is None


@pytest.mark.parametrize("payload", published("deliveries")["ping"])
def test_a_ping_is_kept_without_a_fact(payload: dict[str, Any]) -> None:
    delivery = deliveries.read(headers("ping"), json.dumps(payload).encode(), NOW)
    assert (delivery.event, delivery.fact) == ("ping", None)


@pytest.mark.parametrize("name", ["X-GitHub-Event", "X-GitHub-Delivery", "Content-Type"])
@pytest.mark.parametrize("value", ["", "text/plain; a=b", "x" * 300])
def test_wrong_headers_are_refused_and_named(name: str, value: str) -> None:
    with pytest.raises(BadInput, match=name):
        deliveries.read({**headers(), name: value}, json.dumps(QUEUED).encode(), NOW)


@pytest.mark.parametrize("body", [b"", b"payload=%7B%7D", b"[]", b"null", b"{", b'{"a":NaN}', b"\xff\xfe", b"[" * 9999])
@pytest.mark.parametrize("event", ["workflow_job", "ping", "push"])
def test_what_is_not_a_json_object_is_refused_for_every_event(body: bytes, event: str) -> None:
    with pytest.raises(BadInput, match="JSON"):
        deliveries.read(headers(event), body, NOW)


@given(body=st.binary(max_size=200))
def test_any_bytes_give_a_delivery_or_bad_input(body: bytes) -> None:
    try:
        delivery = deliveries.read(headers("push"), body, NOW)
    except BadInput:
        return
    assert zstandard.decompress(delivery.body) == body


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(path=st.sampled_from(USED), value=JSON)
def test_whatever_stands_in_a_field_we_read_it_right_or_refuse_it(path: tuple[str, ...], value: object) -> None:
    payload = copy.deepcopy(QUEUED)
    place = payload
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    try:
        delivery = deliveries.read(headers(), json.dumps(payload).encode(), NOW)
    except BadInput:
        return
    if delivery.fact is None:
        assert path == ("action",)
        assert value not in set(JobAction)
        return
    written = (delivery.fact.job_id, delivery.fact.name, delivery.fact.labels, delivery.fact.repository)
    job = payload["workflow_job"]
    assert written == (job["id"], job["name"], tuple(job["labels"]), payload["repository"]["full_name"])


DEPLOYED = next(one for one in RECORDED if "deployment" in one)


@pytest.mark.parametrize(
    ("moment", "at"),
    [
        ("2023-04-19T21:12:14Z", datetime(2023, 4, 19, 21, 12, 14, tzinfo=UTC)),
        ("2023-04-19T23:12:14+02:00", datetime(2023, 4, 19, 21, 12, 14, tzinfo=UTC)),
    ],
)
def test_a_deployment_says_when_it_has_changed(moment: str, at: datetime) -> None:
    payload = DEPLOYED | {"deployment": DEPLOYED["deployment"] | {"updated_at": moment}}
    fact = deliveries.read(headers(), json.dumps(payload).encode(), NOW).fact
    assert fact is not None
    assert (fact.deployment_at, fact.deployment_at and fact.deployment_at.tzinfo) == (at, UTC)
    absent = {key: value for key, value in DEPLOYED.items() if key != "deployment"}
    for other in (absent, absent | {"deployment": None}):
        fact = deliveries.read(headers(), json.dumps(other).encode(), NOW).fact
        assert fact is not None
        assert fact.deployment_at is None


@pytest.mark.parametrize("moment", ["yesterday", "2023-04-19T21:12:14", None, [], "0001-01-01T00:00:00+23:00"])
def test_a_deployment_s_moment_that_is_none_is_refused(moment: object) -> None:
    payload = DEPLOYED | {"deployment": DEPLOYED["deployment"] | {"updated_at": moment}}
    with pytest.raises(BadInput, match=r"deployment\.updated_at"):
        deliveries.read(headers(), json.dumps(payload).encode(), NOW)
