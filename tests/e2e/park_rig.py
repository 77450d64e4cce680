"""A rig with an object store: a real host listener in a namespace of its own, over TLS, with the store in a directory.

host a ──PUT──▶ gunicorn (control) ──▶ directory ──▶ GET ──▶ host b        the rows stay with the test
"""

from __future__ import annotations

import secrets
import subprocess
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.e2e.engine_rig import LIMIT_S, Rig, eventually
from workers.bootstrap.leaf import renewal
from workers.bootstrap.serve import host_command
from workers.clock import SystemClock
from workers.domain.host import Host, HostState
from workers.domain.messages import BootOrder, MoveOrder, ParkOrder
from workers.domain.migration import Migration, MigrationPhase, stored, taken_out
from workers.domain.names import HostId, MigrationId, migration_id
from workers.domain.park import MANIFEST, ObjectMethod, missing, object_name, read_manifest
from workers.domain.runner import Shape
from workers.host.packages import Unpacked
from workers.host.parts import Objects
from workers.host.transfers import Transfers
from workers.objects import DirectoryObjects
from workers.settings import ControlSettings
from workers.store.repository import open_store

CONTROL = "10.90.0.2"
PORT = 8443
P = MigrationPhase


class ParkRig(Rig):
    """Hosts that can park."""

    def __init__(self, unpacked: Unpacked, names: tuple[str, ...] = ("a", "b")) -> None:
        self._transfers: list[Transfers] = []
        self._listener: subprocess.Popen[bytes] | None = None
        super().__init__(unpacked, names)
        try:
            self.settings = ControlSettings(home=self.home, host_listen=f"{CONTROL}:{PORT}", database_url=None)
            self.store = DirectoryObjects.open(self.home / "objects", self.home / "objects.key", SystemClock())
            self.rows.sign = self.signed
            self._listener = self._serve()
        except BaseException:
            self.end()
            raise

    def objects(self, identity: Path) -> Objects:
        transfers = Transfers(f"https://{CONTROL}:{PORT}", identity)
        self._transfers.append(transfers)
        return transfers

    def begin_park(self, order: BootOrder, source: str, attempt: int = 1, seconds: float = 60.0) -> Migration:
        """Do what the reconciler does until the source has its order."""
        row = self._planned(order, attempt, seconds, source=self[source].id)
        row = self.rows.change(row.id, lambda one: replace(one, phase=P.COPYING, key=secrets.token_hex(32)))
        park = ParkOrder(row.id, row.key or "")
        moved = replace(order, epoch=row.epoch)
        move = MoveOrder(row.id, moved, None, "", seconds, row.epoch - 1, park=park)
        self[source].inside.run(self[source].engine.send(move))
        return row

    def commit(self, key: MigrationId) -> Migration:
        """Look into the store and commit, as the control plane does once the source has said PAUSED."""
        row = self.rows.wait(key, P.PAUSED, P.ABORTED)
        assert row.phase is P.PAUSED, self.rows.reasons
        content = self.store.read(object_name(key, MANIFEST))
        assert content is not None
        manifest = read_manifest(content, key, row.manifest)
        sizes = {name.rpartition("/")[2]: size for name, size in self.store.listed(f"parks/{key}/").items()}
        assert missing(manifest, sizes) is None
        return self.rows.change(key, lambda one: stored(one, datetime.now(UTC)))

    def park(self, order: BootOrder, source: str, attempt: int = 1, seconds: float = 60.0) -> Migration:
        """Park a guest, and wait until nothing of it is left at the source."""
        row = self.begin_park(order, source, attempt, seconds)
        self.commit(row.id)
        eventually(lambda: self.rows.get(row.id).wiped_at, f"{source} has wiped what it parked")
        self.settle(order.runner_id)
        return self.rows.get(row.id)

    def begin_resume(
        self, park: Migration, order: BootOrder, target: str, attempt: int = 2, seconds: float = 60.0
    ) -> Migration:
        """Do what the reconciler does until the target has its order and the store has given the guest away."""
        moved = replace(order, epoch=park.epoch)
        row = self._planned(moved, attempt, seconds, target=self[target].id, park_id=park.id)
        access = ParkOrder(park.id, park.key or "", park.manifest)
        into = MoveOrder(row.id, replace(order, epoch=row.epoch), None, "", seconds, row.epoch - 1, park=access)
        assert self[target].inside.run(self[target].engine.receive(into)) is None
        return self.rows.change(row.id, lambda one: taken_out(replace(one, phase=P.COPYING)))

    def end(self) -> None:
        super().end()
        if self._listener is not None:
            self._listener.terminate()
            self._listener.wait(LIMIT_S)
        for transfers in self._transfers:
            transfers.close()

    # ------------------------------------------------------------ inside

    def _planned(
        self,
        order: BootOrder,
        attempt: int,
        seconds: float,
        source: HostId | None = None,
        target: HostId | None = None,
        park_id: MigrationId | None = None,
    ) -> Migration:
        now = datetime.now(UTC)
        row = Migration(
            id=migration_id(f"{order.number}-{attempt}"),
            runner_id=order.runner_id,
            source_id=source,
            target_id=target,
            phase=P.PLANNED,
            epoch=order.epoch + 1,
            planned_at=now,
            deadline_at=now + timedelta(seconds=seconds),
            park_id=park_id,
        )
        self.rows.add(row)
        return row

    def signed(self, row: Migration, host: HostId, names: tuple[str, ...]) -> Mapping[str, str]:
        method = ObjectMethod.PUT if row.source_id == host else ObjectMethod.GET
        limit = timedelta(minutes=1)
        return {name: self.store.url(method, object_name(row.park_id or row.id, name), limit) for name in names}

    def _serve(self) -> subprocess.Popen[bytes]:
        """Start the production listener; it admits the hosts that its store knows."""
        store = open_store(self.settings.database, SystemClock())
        for host in self.hosts.values():
            spec = Shape(8, 16384, 65536)
            store.hosts.add(Host(host.id, "rig", HostState.READY, datetime.now(UTC), spec, address=host.address))
        store.close()
        renewal(self.settings, "serve")
        place = self._site.add("control", eth0=f"underlay {CONTROL}/24")
        environment = {
            "SPOT_RUNNER_HOME": str(self.home),
            "PATH": "/usr/bin:/usr/sbin:/bin:/sbin",
            "PYTHONPATH": ":".join(str(path) for path in (Path.cwd(), Path.cwd() / "runner-vm")),
        }
        command = ("ip", "netns", "exec", place.name, *host_command(self.settings))
        with (self.home / "listener.log").open("wb") as log:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        eventually(lambda: _answers(place.connect, process), "the host listener listens")
        return process


def _answers(connect: object, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, "the listener has ended"
    try:
        connect(CONTROL, PORT, 1.0).close()  # type: ignore[operator]
    except OSError:
        time.sleep(0)
        return False
    return True
