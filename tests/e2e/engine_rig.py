"""Hosts with real engines in namespaces of their own, and rows that decide by the domain's own functions.

control plane = `Rows`, in this process;  host = namespace + event loop in a thread + Engine + HostNetwork
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from tests.e2e.inside import Inside
from tests.integration.wires import Place, Site
from workers.domain.errors import Unreachable
from workers.domain.messages import (
    BootOrder,
    GuestRunnerState,
    MoveOrder,
    RegistrationAnswer,
    RenewalRequest,
    RowView,
    RunnerReport,
    Word,
)
from workers.domain.migration import (
    MIGRATION,
    Migration,
    MigrationPhase,
    Ports,
    Said,
    aborted,
    decide,
    may_pause,
    seen,
    stood_ms,
)
from workers.domain.names import HostId, MigrationId, RunnerId, guest_address, host_id, migration_id, runner_id
from workers.domain.runner import Shape
from workers.host.engine import Engine, EngineParts
from workers.host.guest import GuestChannel
from workers.host.microvm import Microvm
from workers.host.network import HostNetwork
from workers.host.packages import PackageShelf, Unpacked
from workers.host.parts import Objects
from workers.identity import Authority, Leaf, make_csr, write_leaf

T = TypeVar("T")
LIMIT_S = 90.0
RELAY = "10.90.0.3"
STORE = Path("/var/cache/spot-runner/packages")
CACHE = Path("/var/cache/spot-runner/unpacked")
END_OF_MOVE = frozenset({MigrationPhase.FINISHED, MigrationPhase.ABORTED})


def eventually(condition: Callable[[], T], what: str, limit_s: float = LIMIT_S) -> T:
    """Wait for a condition that nothing announces; return what it says."""
    end, pause = time.monotonic() + limit_s, threading.Event()
    while not (value := condition()):
        assert time.monotonic() < end, f"not within {limit_s} s: {what}"
        pause.wait(0.02)
    return value


class Rows:
    """The control plane's rows: one lock, the domain's own decisions, and whatever trouble a test wants."""

    def __init__(self) -> None:
        self._rows: dict[MigrationId, Migration] = {}
        self._changed = threading.Condition()
        self.words: list[tuple[HostId, Said]] = []
        self.lost: set[Said] = set()
        """Words that never arrive."""
        self.unanswered: set[Said] = set()
        """Words whose answer is lost if they changed the row, and with it the host's way to the control plane."""
        self.deaf: set[HostId] = set()
        """Hosts that cannot reach the control plane at all."""
        self.sign: Callable[[Migration, HostId, tuple[str, ...]], Mapping[str, str]] | None = None
        """Gives a host the URLs of its park's objects, if there is an object store."""
        self.forged: dict[HostId, Callable[[str, MigrationId], RegistrationAnswer]] = {}
        """Hosts whose monitors show another certificate than they should."""
        self.unheard: list[tuple[HostId, Said | None]] = []
        """What was said, or asked (None), and did not arrive."""
        self.figures: dict[str, float] = {}
        self.figures_of: defaultdict[MigrationId, dict[str, float]] = defaultdict(dict)
        self.reasons: list[str] = []

    def add(self, row: Migration) -> None:
        with self._changed:
            self._rows[row.id] = row

    def get(self, key: MigrationId) -> Migration:
        with self._changed:
            return self._rows[key]

    def of(self, runner: RunnerId) -> list[Migration]:
        with self._changed:
            return [row for row in self._rows.values() if row.runner_id == runner]

    def change(self, key: MigrationId, change: Callable[[Migration], Migration]) -> Migration:
        with self._changed:
            self._rows[key] = change(self._rows[key])
            self._changed.notify_all()
            return self._rows[key]

    def abort(self, key: MigrationId) -> Migration:
        return self.change(key, lambda row: aborted(row, "the test wants it so", source_is_gone=False))

    def enter(self, key: MigrationId, phase: MigrationPhase, ports: Ports | None = None) -> None:
        self.change(key, lambda row: replace(row, phase=MIGRATION.move(row.phase, phase), ports=ports or row.ports))

    def wait(self, key: MigrationId, *phases: MigrationPhase, limit_s: float = LIMIT_S) -> Migration:
        with self._changed:
            arrived = self._changed.wait_for(lambda: self._rows[key].phase in phases, limit_s)
            assert arrived, (
                f"{self._rows[key]} is not {phases} after {limit_s} s; words: {self.words}; reasons: {self.reasons}"
            )
            return self._rows[key]

    def hear(self, host: HostId, key: MigrationId, said: Said | None, word: Word | None) -> RowView:
        if host in self.deaf or said in self.lost:
            self.unheard.append((host, said))
            raise Unreachable("the test's wire is cut")
        now = datetime.now(UTC)
        with self._changed:
            row = self._rows[key]
            role = row.role_of(host)
            assert role is not None, f"{host} has no part in {key}"
            row = seen(row, role, now)
            if said is not None and word is not None:
                assert word.epoch == row.epoch
                self.words.append((host, said))
                if word.reason:
                    self.reasons.append(f"{role}: {word.reason}")
                self.figures.update(word.figures)
                self.figures_of[key].update(word.figures)
                row = replace(decide(row, role, said, now), manifest=word.manifest or row.manifest)
            has_won = row.phase is not self._rows[key].phase
            self._rows[key] = row
            self._changed.notify_all()
        if has_won and said in self.unanswered:
            self.deaf.add(host)
            raise Unreachable("the test's wire lost the answer, and is cut from then on")
        stood = stood_ms(replace(row, figures=self.figures_of[key]))
        return RowView(row.phase, row.epoch, may_pause(row, now), (row.deadline_at - now).total_seconds(), stood)


@dataclass(frozen=True)
class RowClient:
    """One host's way to the rows."""

    rows: Rows
    host: HostId
    authority: Authority

    async def move_certificate(self, migration_id: MigrationId, request: RenewalRequest) -> RegistrationAnswer:
        self.rows.hear(self.host, migration_id, None, None)
        if forge := self.rows.forged.get(self.host):
            return forge(request.csr, migration_id)
        certificate = self.authority.move_certificate(request.csr, self.host, migration_id)
        return RegistrationAnswer(certificate, self.authority.control_ca, self.authority.hosts_ca)

    async def row(self, migration_id: MigrationId) -> RowView:
        return self.rows.hear(self.host, migration_id, None, None)

    async def say(self, migration_id: MigrationId, said: Said, word: Word) -> RowView:
        return self.rows.hear(self.host, migration_id, said, word)

    async def object_urls(self, migration_id: MigrationId, names: tuple[str, ...]) -> Mapping[str, str]:
        if self.rows.sign is None or self.host in self.rows.deaf:
            raise Unreachable("nobody answers who knows of an object store")
        return self.rows.sign(self.rows.get(migration_id), self.host, names)


class NoObjects:
    """A rig without an object store."""

    def put(self, url: str, content: bytes) -> None:
        raise Unreachable("there is no object store")

    def get(self, url: str, limit_bytes: int) -> bytes:
        raise Unreachable("there is no object store")


@dataclass
class EngineHost:
    """One host; `restart` is what a crash of its daemon looks like to everything else."""

    id: HostId
    address: str
    place: Place
    parts: EngineParts
    inside: Inside
    engine: Engine = field(init=False)

    def __post_init__(self) -> None:
        self.engine = self.inside.run(self._open())

    def restart(self) -> None:
        """Forget everything that is not on disk, then adopt."""
        self.let_go()
        self.take_up()

    def let_go(self) -> None:
        self.inside.run(self.engine.release())

    def take_up(self) -> None:
        self.engine = self.inside.run(self._open())

    def microvm(self, runner: RunnerId) -> Microvm:
        return self.engine._microvms[runner]

    def report(self, runner: RunnerId) -> RunnerReport | None:
        return next((report for report in self.engine.reports() if report.runner_id == runner), None)

    def pid(self, runner: RunnerId) -> int:
        return self.microvm(runner).qemu.name.pid

    def call(self, runner: RunnerId, function: str, *args: object) -> Any:  # noqa: ANN401 - as the guest says
        return self.inside.run(self.microvm(runner).call(function, *args, limit_s=30.0))

    def wait_ended(self, runner: RunnerId, limit_s: float = LIMIT_S) -> int | None:
        """Wait until the guest's runner program has ended; return its exit code."""
        report = eventually(lambda: self._ended(runner), f"{runner}'s program has ended", limit_s)
        return None if report is None else report.exit_code

    def _ended(self, runner: RunnerId) -> RunnerReport | None:
        report = self.report(runner)
        return report if report is not None and report.guest is GuestRunnerState.ENDED else None

    def end(self) -> None:
        async def stop_all() -> None:
            for report in self.engine.reports():
                move = self.engine._moves.get(report.runner_id)
                if move is not None:
                    await move.leave()
                await self.engine._microvms[report.runner_id].wipe()

        self.inside.run(stop_all())
        self.inside.end()
        shutil.rmtree(self.parts.home, ignore_errors=True)

    async def _open(self) -> Engine:
        engine = Engine(self.parts)
        await engine.adopt()
        return engine


class Rig:
    """Some hosts on one underlay, and the rows between them."""

    def __init__(self, unpacked: Unpacked, names: tuple[str, ...] = ("a", "b")) -> None:
        self.unpacked = unpacked
        self.rows = Rows()
        # Short, since a unix socket's path must be.
        self.home = Path(tempfile.mkdtemp(prefix="h6.", dir="/tmp"))
        self.home.chmod(0o711)
        self.authority = Authority.open(self.home / "ca")
        self._site = Site(f"h6e{os.getpid()}")
        self.hosts: dict[str, EngineHost] = {}
        try:
            for place, name in enumerate(names):
                self.hosts[name] = self._add(name, f"10.90.0.{16 + place}")
        except BaseException:
            self.end()
            raise

    def __getitem__(self, name: str) -> EngineHost:
        return self.hosts[name]

    def identity(self, name: HostId, address: str) -> Path:
        directory = self.home / name / "identity"
        key, request = make_csr(name)
        leaf = Leaf(self.authority.host_certificate(request, name, address), key)
        write_leaf(directory, leaf, self.authority.control_ca, self.authority.hosts_ca)
        return directory

    def order(self, number: int = 0, epoch: int = 1) -> BootOrder:
        machine = self.unpacked.manifest.machine
        shape = Shape(machine.vcpus, machine.memory_mib, self.unpacked.manifest.disk_mib)
        name = runner_id(f"{os.getpid()}-{number}")
        return BootOrder(name, epoch, number, self.unpacked.digest, shape, guest_address(number))

    def plan(self, order: BootOrder, source: str, target: str, attempt: int = 1, seconds: float = 60.0) -> Migration:
        now = datetime.now(UTC)
        row = Migration(
            id=migration_id(f"{order.number}-{attempt}"),
            runner_id=order.runner_id,
            source_id=self[source].id,
            target_id=self[target].id,
            phase=MigrationPhase.PLANNED,
            epoch=order.epoch + 1,
            planned_at=now,
            deadline_at=now + timedelta(seconds=seconds),
        )
        self.rows.add(row)
        return row

    def begin(
        self,
        order: BootOrder,
        source: str,
        target: str,
        attempt: int = 1,
        seconds: float = 60.0,
        share_mib_s: float | None = None,
    ) -> Migration:
        """Do what the reconciler does until the source has its order."""
        row = self.listen(order, source, target, attempt, seconds)
        row = self.rows.change(row.id, lambda row: replace(row, share_mib_s=share_mib_s))
        self.send(order, row, seconds)
        return self.rows.get(row.id)

    def objects(self, identity: Path) -> Objects:
        return NoObjects()

    def listen(self, order: BootOrder, source: str, target: str, attempt: int = 1, seconds: float = 60.0) -> Migration:
        """Do what the reconciler does until the target listens."""
        row = self.plan(order, source, target, attempt, seconds)
        to_target = self.move_order(order, row, self[source], seconds)
        ports = self[target].inside.run(self[target].engine.receive(to_target))
        self.rows.enter(row.id, MigrationPhase.RECEIVING, ports)
        return self.rows.get(row.id)

    def send(self, order: BootOrder, row: Migration, seconds: float = 60.0) -> None:
        """Give the source its order."""
        source, target = (self._host(key) for key in (row.source_id, row.target_id))
        self.rows.enter(row.id, MigrationPhase.COPYING)
        source.inside.run(source.engine.send(self.move_order(order, row, target, seconds)))

    def move_order(self, order: BootOrder, row: Migration, peer: EngineHost, seconds: float = 60.0) -> MoveOrder:
        moved = replace(order, epoch=row.epoch)
        told = MoveOrder(row.id, moved, peer.id, peer.address, seconds, row.epoch - 1, ports=row.ports)
        return replace(told, share_mib_s=row.share_mib_s)

    def _host(self, key: HostId | None) -> EngineHost:
        return next(host for host in self.hosts.values() if host.id == key)

    def settle(self, runner: RunnerId) -> None:
        """Wait until no host has anything undecided about this runner."""
        hosts = self.hosts.values()
        eventually(lambda: all(runner not in host.engine._moves for host in hosts), f"{runner} is settled")

    def end(self) -> None:
        for host in self.hosts.values():
            host.end()
        self._site.remove()
        shutil.rmtree(self.home, ignore_errors=True)

    def _add(self, name: str, address: str) -> EngineHost:
        key = host_id(f"{os.getpid()}-{name}")
        place = self._site.add(name, eth0=f"underlay {address}/24")
        network = HostNetwork(address, RELAY)
        place.call(network.prepare)
        parts = EngineParts(
            host_id=key,
            address=address,
            home=self.home / key / "engine",
            make_csr=make_csr,
            shelf=_Shelf(self.unpacked),
            network=network,
            control=RowClient(self.rows, key, self.authority),
            objects=self.objects(self.identity(key, address)),
            connect_guest=GuestChannel.connect,
        )
        return EngineHost(key, address, place, parts, Inside(place.name))


@dataclass(frozen=True)
class _Shelf:
    """Holds one package that is unpacked already."""

    held: Unpacked

    def unpacked(self, digest: str) -> Unpacked:
        assert digest == self.held.digest
        return self.held


def runner_package() -> Unpacked:
    """The package that runners start from; `spot-runner package build debian-12` makes it."""
    shelf = PackageShelf(STORE, CACHE)
    return shelf.unpacked(shelf.named("debian-12"))
