"""The public listener over a real store: every bad input of the contract, and what is written down."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.contract.store_rows import ManualClock
from tests.integration.listeners import SECRET, HeardHints, signed
from webhook.app import create_public_app
from webhook.deliveries import BODY_LIMIT_BYTES
from workers.domain.errors import BadInput
from workers.domain.installation import InstallationState, guests
from workers.domain.names import JobId
from workers.rehearsal.github.contract import published
from workers.store.repository import SqlStore, open_store

QUEUED: dict[str, Any] = next(
    one for one in published("deliveries")["workflow_job"] if one["action"] == "queued" and "installation" in one
)
JOB = JobId(QUEUED["workflow_job"]["id"])


@pytest.fixture
def store(tmp_path: Path, clock: ManualClock) -> Iterator[SqlStore]:
    (tmp_path / "db").mkdir()
    opened = open_store(f"sqlite:///{tmp_path / 'db' / 'store.sqlite'}", clock)
    yield opened
    opened.close()


@contextlib.contextmanager
def hidden(directory: Path) -> Iterator[None]:
    """Let the store be nowhere for a while."""
    directory.rename(directory.with_name("hidden"))
    try:
        yield
    finally:
        directory.with_name("hidden").rename(directory)


def kept_guids(tmp_path: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(tmp_path / "db" / "store.sqlite")) as connection:
        return [guid for (guid,) in connection.execute("SELECT guid FROM deliveries")]


@pytest.fixture
def client(store: SqlStore, hints: HeardHints, clock: ManualClock) -> FlaskClient:
    return create_public_app(store, hints, clock, [SECRET]).test_client()


def post(client: FlaskClient, body: bytes, headers: dict[str, str]) -> int:
    return client.post("/github", data=body, headers=headers).status_code


def test_a_delivery_is_written_down_and_then_hinted_at(
    client: FlaskClient, store: SqlStore, hints: HeardHints, clock: ManualClock
) -> None:
    assert post(client, *signed("workflow_job", QUEUED, "guid-1")) == 202
    assert [(fact.delivery, fact.seen_at) for fact in store.facts_of(JOB)] == [("guid-1", clock.now())]
    assert hints.heard == [("job", (str(JOB),), False)]


def test_a_delivery_that_comes_again_is_counted_once(client: FlaskClient, store: SqlStore, clock: ManualClock) -> None:
    for _ in range(3):
        assert post(client, *signed("workflow_job", QUEUED, "guid-1")) == 202
        clock.move(timedelta(seconds=1))
    assert len(store.facts_of(JOB)) == 1
    assert post(client, *signed("workflow_job", QUEUED, "guid-2")) == 202
    assert len(store.facts_of(JOB)) == 2


def test_a_wrong_or_missing_signature_is_refused_and_nothing_is_written(
    client: FlaskClient, store: SqlStore, hints: HeardHints
) -> None:
    body, headers = signed("workflow_job", QUEUED, "guid-1")
    stranger = signed("workflow_job", QUEUED, "guid-1", secret=b"another")[1]
    unsigned = {name: value for name, value in headers.items() if name != "X-Hub-Signature-256"}
    assert [post(client, body, each) for each in (stranger, unsigned)] == [401, 401]
    assert post(client, body + b" ", headers) == 401
    assert (store.facts_of(JOB), hints.heard) == ([], [])


def test_a_body_over_the_limit_is_refused_before_it_is_read(client: FlaskClient, store: SqlStore) -> None:
    assert post(client, *signed("workflow_job", {**QUEUED, "x": "y" * BODY_LIMIT_BYTES}, "guid-1")) == 413
    padding = BODY_LIMIT_BYTES - len(json.dumps({**QUEUED, "x": ""}).encode())
    assert post(client, *signed("workflow_job", {**QUEUED, "x": "y" * padding}, "guid-2")) == 202
    assert [fact.delivery for fact in store.facts_of(JOB)] == ["guid-2"]


@pytest.mark.parametrize("payload", [b"", b"{", b"payload=%7B%7D", b"[]", {**QUEUED, "workflow_job": {}}])
def test_what_is_not_json_or_not_the_schema_is_refused_with_a_sentence(client: FlaskClient, payload: object) -> None:
    body, headers = signed("workflow_job", payload, "guid-1")
    answer = client.post("/github", data=body, headers=headers)
    assert answer.status_code == 400
    assert len(answer.get_json()["error"]) > 20


@pytest.mark.parametrize(
    ("event", "payload"),
    [("workflow_job", {**QUEUED, "action": "requeued"}), ("push", {"ref": "x"}), ("ping", {"zen": "x"})],
)
def test_what_we_do_not_use_is_recorded_and_moves_nothing(
    tmp_path: Path, client: FlaskClient, store: SqlStore, hints: HeardHints, event: str, payload: object
) -> None:
    assert post(client, *signed(event, payload, "guid-1")) == 202
    assert kept_guids(tmp_path) == ["guid-1"]
    assert (store.facts_of(JOB), hints.heard) == ([], [])


@pytest.mark.parametrize(
    ("allowed", "denied", "refused"),
    [
        ([], [], False),
        (["CoderToCat"], [], False),
        ([str(QUEUED["installation"]["id"])], [], False),
        (["somebody-else"], [], True),
        ([], ["codertocat"], True),
        (["codertocat"], [str(QUEUED["installation"]["id"])], True),
    ],
)
def test_the_jobs_of_whoever_is_not_served_are_recorded_with_the_reason_and_are_no_facts(
    tmp_path: Path,
    store: SqlStore,
    hints: HeardHints,
    clock: ManualClock,
    allowed: list[str],
    denied: list[str],
    *,
    refused: bool,
) -> None:
    assert QUEUED["repository"]["full_name"].startswith("Codertocat/")
    client = create_public_app(store, hints, clock, [SECRET], guests(allowed, denied)).test_client()
    assert post(client, *signed("workflow_job", QUEUED, "guid-1")) == 202
    assert (store.facts_of(JOB) == [], hints.heard == []) == (refused, refused)
    with contextlib.closing(sqlite3.connect(tmp_path / "db" / "store.sqlite")) as connection:
        ((reason,),) = connection.execute("SELECT refused FROM deliveries")
    assert ("Codertocat" in reason) if refused else reason is None


def test_what_is_no_account_is_refused_before_anything_is_served() -> None:
    with pytest.raises(BadInput, match="'octo org' is neither an account"):
        guests(["octo org"], [])


def test_an_installation_s_word_is_written_down_and_its_jobs_are_looked_at(
    client: FlaskClient, store: SqlStore, hints: HeardHints
) -> None:
    suspend = next(one for one in published("deliveries")["installation"] if one["action"] == "suspend")
    assert post(client, *signed("installation", suspend, "guid-1")) == 202
    row = store.installation(suspend["installation"]["id"])
    assert row is not None
    assert row.state is InstallationState.SUSPENDED
    assert hints.heard == [("installation", (str(row.id),), False)]


def test_a_store_that_cannot_be_reached_is_answered_503_and_the_redelivery_counts(
    tmp_path: Path, client: FlaskClient, store: SqlStore, hints: HeardHints
) -> None:
    store.close()
    with hidden(tmp_path / "db"):
        assert post(client, *signed("workflow_job", QUEUED, "guid-1")) == 503
        assert hints.heard == []
    assert post(client, *signed("workflow_job", QUEUED, "guid-1")) == 202
    assert len(store.facts_of(JOB)) == 1


def test_health_says_whether_the_store_answers(tmp_path: Path, client: FlaskClient, store: SqlStore) -> None:
    assert client.get("/healthz").status_code == 200
    store.close()
    with hidden(tmp_path / "db"):
        assert client.get("/healthz").status_code == 503
    assert kept_guids(tmp_path) == []


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/github", 405), ("GET", "/", 404)])
def test_other_calls_are_refused_with_a_sentence(client: FlaskClient, method: str, path: str, status: int) -> None:
    answer = client.open(path, method=method)
    assert (answer.status_code, list(answer.get_json())) == (status, ["error"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(drawing=st.data())
def test_any_order_with_any_doubles_leaves_each_delivery_once(
    tmp_path: Path, client: FlaskClient, store: SqlStore, drawing: st.DataObject
) -> None:
    before = set(kept_guids(tmp_path))
    sent = drawing.draw(st.lists(st.sampled_from([f"guid-{number}" for number in range(5)]), max_size=12))
    for guid in sent:
        assert post(client, *signed("workflow_job", QUEUED, guid)) == 202
    kept = kept_guids(tmp_path)
    assert len(kept) == len(set(kept))
    assert set(kept) == before | set(sent)
    assert len(store.facts_of(JOB)) == len(kept)
