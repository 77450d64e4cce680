"""What a host may reach of the object store, over a real store and a real authority."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import TypeAdapter
from werkzeug.test import TestResponse

from tests.contract.store_rows import START, ManualClock, a_host, a_runner
from tests.integration.listeners import HeardHints, HostCaller, happened
from workers.domain.events import Happening
from workers.domain.host import HostState
from workers.domain.messages import ObjectsAsked, ObjectUrls, Word
from workers.domain.migration import Migration, MigrationPhase
from workers.domain.names import HostId, MigrationId
from workers.identity import Authority
from workers.objects import DirectoryObjects
from workers.planning.parking import planned_park, planned_resume
from workers.reconcilers.parks import PARK_LIMIT
from workers.store.repository import SqlStore

A, B = HostId("spot-host-a"), HostId("spot-host-b")
RUNNER = a_runner(1, A)
P = MigrationPhase
NAMES = ("memory-000000", "disk-000003", "manifest")


@pytest.fixture
def caller(store: SqlStore, authority: Authority, hints: HeardHints, clock: ManualClock, tmp_path: Path) -> HostCaller:
    objects = DirectoryObjects.open(tmp_path / "objects", tmp_path / "objects.key", clock)
    store.hosts.add(a_host(A, state=HostState.DRAINING))
    store.hosts.add(a_host(B))
    return HostCaller(store, authority, hints, clock, objects)


def parking(store: SqlStore, phase: MigrationPhase) -> Migration:
    row = planned_park(RUNNER, a_host(A), MigrationId("spot-move-1"), "5a" * 32, START)
    row = replace(row, phase=phase)
    store.runners.add(replace(RUNNER, migration_id=row.id))
    store.migrations.add(row)
    return row


def resuming(store: SqlStore, phase: MigrationPhase) -> Migration:
    park = parking(store, P.COMMITTED)
    row = planned_resume(RUNNER, park, a_host(B), MigrationId("spot-move-2"), START, PARK_LIMIT)
    row = replace(row, phase=phase)
    store.migrations.add(row)
    return row


def ask(caller: HostCaller, who: HostId, row: Migration, *names: str) -> TestResponse:
    return caller.post(f"/v1/migrations/{row.id}/objects", who, ObjectsAsked(names or NAMES))


def urls(answer: TestResponse) -> dict[str, str]:
    assert answer.status_code == 200, answer.text
    return dict(TypeAdapter(ObjectUrls).validate_json(answer.data).urls)


def test_the_source_of_a_park_may_write_its_objects_and_read_none(caller: HostCaller, store: SqlStore) -> None:
    found = urls(ask(caller, A, parking(store, P.COPYING)))
    assert set(found) == set(NAMES)
    for name, url in found.items():
        assert url.startswith(f"/v1/objects/parks/spot-move-1/{name}?")
        assert caller.put(url, A, b"x").status_code == 204
        assert caller.get(url, A).status_code == 403


def test_the_target_of_a_resume_may_read_its_parks_objects_and_write_none(caller: HostCaller, store: SqlStore) -> None:
    found = urls(ask(caller, B, resuming(store, P.PLANNED)))
    for name, url in found.items():
        assert url.startswith(f"/v1/objects/parks/spot-move-1/{name}?")
        assert caller.put(url, B, b"x").status_code == 403
        assert caller.get(url, B).status_code == 404, "nobody has written it"


@pytest.mark.parametrize("phase", [P.PLANNED, P.PAUSED, P.COMMITTED, P.FINISHED, P.ABORTED])
def test_nobody_writes_before_it_copies_or_once_it_has_said_paused(
    caller: HostCaller, store: SqlStore, phase: MigrationPhase
) -> None:
    answer = ask(caller, A, parking(store, phase))
    assert answer.status_code == 403
    assert f"nothing to do with the object store in phase {phase}" in answer.text


@pytest.mark.parametrize("phase", [P.COMMITTED, P.FINISHED, P.ABORTED])
def test_nobody_reads_once_that_is_decided(caller: HostCaller, store: SqlStore, phase: MigrationPhase) -> None:
    assert ask(caller, B, resuming(store, phase)).status_code == 403


def test_another_hosts_park_is_not_there(caller: HostCaller, store: SqlStore) -> None:
    assert ask(caller, B, parking(store, P.COPYING)).status_code == 404
    assert caller.post("/v1/migrations/spot-move-9/objects", A, ObjectsAsked(NAMES)).status_code == 404


@pytest.mark.parametrize("names", [("../spot-move-2/manifest",), ("memory-1",), ("memory-000000",) * 65])
def test_a_host_asks_for_objects_of_a_park_and_nothing_else(
    caller: HostCaller, store: SqlStore, names: tuple[str, ...]
) -> None:
    answer = ask(caller, A, parking(store, P.COPYING), *names)
    assert answer.status_code == 400
    assert "names" in answer.text


def test_paused_needs_the_list_of_parts_and_no_host_commits(
    caller: HostCaller, store: SqlStore, hints: HeardHints
) -> None:
    row = parking(store, P.COPYING)
    answer = caller.post(f"/v1/migrations/{row.id}/paused", A, Word(epoch=2))
    assert answer.status_code == 400
    assert "manifest: missing" in answer.text
    for said, word in (("paused", Word(epoch=2, manifest="its hash")), ("committed", Word(epoch=2))):
        assert caller.post(f"/v1/migrations/{row.id}/{said}", A, word).status_code == 200
    found = store.migrations.get(row.id)
    assert found is not None
    assert (found.phase, found.manifest) == (P.PAUSED, "its hash")
    assert Happening.MIGRATION_COMMITTED not in happened(store)
    assert ("migration", (row.id,), False) in hints.heard


def test_the_key_is_told_to_nobody_here(caller: HostCaller, store: SqlStore) -> None:
    row = parking(store, P.COPYING)
    answers = [caller.get(f"/v1/migrations/{row.id}", A), ask(caller, A, row)]
    assert row.key is not None
    assert not any(row.key in answer.text for answer in answers)
