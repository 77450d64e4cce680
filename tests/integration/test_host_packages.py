"""Where packages are read is told to hosts of ours alone, and for reading alone."""

from __future__ import annotations

from pathlib import Path

from pydantic import TypeAdapter

from tests.contract.store_rows import ManualClock
from tests.integration.listeners import HeardHints, HostCaller, bare
from workers.domain.host import HostState
from workers.domain.messages import ObjectsAsked, ObjectUrls
from workers.domain.names import HostId, PackageDigest
from workers.domain.published import object_name
from workers.identity import Authority
from workers.objects import DirectoryObjects
from workers.store.repository import SqlStore

H = HostId("spot-host-a")
PACKAGE = PackageDigest("sha256:" + "ab" * 32)


def test_a_host_is_told_where_a_package_is_read_and_nobody_else_is(
    store: SqlStore, authority: Authority, hints: HeardHints, clock: ManualClock, tmp_path: Path
) -> None:
    store.hosts.add(bare(H, HostState.PREPARING))
    objects = DirectoryObjects.open(tmp_path / "objects", tmp_path / "objects.key", clock)
    caller = HostCaller(store, authority, hints, clock, objects)
    objects.write(object_name(PACKAGE, "index"), b"content")
    path = f"/v1/packages/{PACKAGE.removeprefix('sha256:')}/objects"
    answer = caller.post(path, H, ObjectsAsked(("index",)))
    url = TypeAdapter(ObjectUrls).validate_json(answer.data).urls["index"]
    assert caller.get(url, H).data == b"content"
    assert caller.put(url, H, b"another").status_code == 403, "it is good for reading alone"
    assert caller.get(url, None).status_code == 403
    assert caller.post(path, None, ObjectsAsked(("index",))).status_code == 403
    assert caller.post(path, H, ObjectsAsked(("../index",))).status_code == 400
    assert caller.post("/v1/packages/zero/objects", H, ObjectsAsked(("index",))).status_code == 400
    assert caller.post(path, H, ObjectsAsked(("index",) * 65)).status_code == 400
