"""The list of a park's parts, and what its names lead to."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from workers.domain.errors import BadInput
from workers.domain.names import MigrationId
from workers.domain.park import (
    PARTS_MAX,
    Manifest,
    Part,
    Stream,
    manifest_bytes,
    manifest_hash,
    missing,
    object_name,
    park_of,
    part_name,
    read_manifest,
)

PARK = MigrationId("spot-move-1")
WHOLE = Manifest(PARK, (Part(10, "a" * 64), Part(11, "b" * 64)), (Part(12, "c" * 64),), 4096)
SIZES = {"memory-000000": 10, "memory-000001": 11, "disk-000000": 12}


def read(content: bytes, park: MigrationId = PARK) -> Manifest:
    return read_manifest(content, park, manifest_hash(content))


def test_what_was_listed_is_read() -> None:
    assert read(manifest_bytes(WHOLE)) == WHOLE
    assert WHOLE.sizes() == SIZES
    assert WHOLE.parts(Stream.DISK) == WHOLE.disk


def test_another_list_than_the_rows_is_refused() -> None:
    for sha256 in (None, "0" * 64):
        with pytest.raises(BadInput, match=r"^spot-move-1: manifest: its hash is not the row's"):
            read_manifest(manifest_bytes(WHOLE), PARK, sha256)


def test_the_list_of_another_park_is_refused() -> None:
    with pytest.raises(BadInput, match="it is that of spot-move-1"):
        read(manifest_bytes(WHOLE), MigrationId("spot-move-2"))


@pytest.mark.parametrize(
    ("changes", "because"),
    [
        ({"version": 2}, "version 2 instead of 1"),
        ({"overlay_bytes": -1}, "overlay_bytes"),
        ({"overlay_bytes": "many"}, "overlay_bytes"),
        ({"memory": {}}, "at most"),
        ({"memory": [{"sealed_bytes": 0, "sha256": "a" * 64}]}, "sealed_bytes is 0"),
        ({"memory": [{"sealed_bytes": 1 << 40, "sha256": "a" * 64}]}, "sealed_bytes is 1099511627776"),
        ({"memory": [{"sealed_bytes": 1, "sha256": "../../etc"}]}, "no hash"),
        ({"memory": [{"sealed_bytes": 1}]}, "sha256"),
        ({"memory": [{"sealed_bytes": 1, "sha256": "a" * 64}] * (PARTS_MAX + 1)}, "at most 2048"),
    ],
)
def test_what_is_no_list_of_ours_is_refused_with_its_reason(changes: dict[str, Any], because: str) -> None:
    content = json.dumps(json.loads(manifest_bytes(WHOLE)) | changes).encode()
    with pytest.raises(BadInput, match=f"manifest: not understood .*{because}"):
        read(content)


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"\xff", b'{"version": 1}'])
def test_what_is_no_list_at_all_is_refused(content: bytes) -> None:
    with pytest.raises(BadInput, match="manifest: not understood"):
        read(content)


def test_a_park_is_whole_only_with_every_part_at_its_size() -> None:
    assert missing(WHOLE, SIZES | {"manifest": 300, "memory-000002": 1}) is None
    for name, size in SIZES.items():
        others = {key: value for key, value in SIZES.items() if key != name}
        assert missing(WHOLE, others) == f"{name}: the store has nothing instead of {size} bytes"
        assert missing(WHOLE, others | {name: 9}) == f"{name}: the store has 9 bytes instead of {size} bytes"


def test_names_lead_into_their_own_park_and_back() -> None:
    for name in (*SIZES, "manifest", part_name(Stream.DISK, PARTS_MAX - 1)):
        assert park_of(object_name(PARK, name)) == PARK
    for other in ("parks/x", "elsewhere/x/y", "x"):
        assert park_of(other) is None


@pytest.mark.parametrize("name", ["", "manifest/x", "../x", "memory-1", "memory-002048", "disk-999999", "Memory-0"])
def test_a_host_may_name_nothing_else(name: str) -> None:
    with pytest.raises(BadInput, match="is no object of a park"):
        object_name(PARK, name)


def test_a_truncated_stream_is_another_list() -> None:
    shorter = replace(WHOLE, memory=WHOLE.memory[:1])
    assert manifest_hash(manifest_bytes(shorter)) != manifest_hash(manifest_bytes(WHOLE))
