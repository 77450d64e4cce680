"""READY is proved, not claimed: what this machine is, that every wanted package is whole, that one of them starts.

wish of the control plane ─▶ package verified and laid out ─▶ restored once, its agent answered ─▶ READY
                                          └── as an earlier daemon has seen since this boot ──▶
           ▲──────────────────── another wish, or a trouble that may pass ────────────────────────┘
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final, Protocol

import structlog

from workers.domain.errors import SpotError
from workers.domain.host_class import Acceleration, HostClass
from workers.domain.messages import BootOrder, Heartbeat, RunnerReport
from workers.domain.names import NUMBERS_MAX, PackageDigest, RunnerId, guest_address, runner_id
from workers.domain.runner import Shape
from workers.host.machine import Machine

# The last number of all: no runner has it before 65,518 others run at the same time. The relay has no entry for it, so
# nothing that the test's guest sends goes anywhere.
TEST_NUMBER: Final = NUMBERS_MAX - 1
RETRY_INTERVAL_S: Final = 2.0

_log: Final = structlog.get_logger()


class Stock(Protocol):
    """A package that is laid out to start from."""

    @property
    def machine(self) -> Machine: ...
    @property
    def disk_mib(self) -> int: ...


class Engine(Protocol):
    """What the proof needs of the engine."""

    async def prepare(self, package: PackageDigest) -> Stock:
        """Verify a package and lay it out."""

    async def boot(self, order: BootOrder) -> Mapping[str, float]:
        """Restore a microVM until its agent answers."""

    async def stop(self, runner_id: RunnerId, epoch: int) -> None:
        """End it and wipe what it left."""

    def reports(self) -> tuple[RunnerReport, ...]:
        """Tell of every microVM."""


class Memory(Protocol):
    """What was proved by an earlier daemon on this same machine."""

    def known(self) -> tuple[PackageDigest, ...]:
        """Return the packages that were proved."""

    def note(self, packages: tuple[PackageDigest, ...]) -> None:
        """Remember these, and only these."""


class Readiness:
    """Whether this host may be given runners, and if not, why, in one sentence."""

    def __init__(
        self,
        engine: Engine,
        host_class: HostClass,
        proofs: Memory,
        *,
        allow_tcg: bool,
        stages_s: Mapping[str, float] | None = None,
    ) -> None:
        """`stages_s`: how long what came before took."""
        self.boot_id = secrets.token_hex(8)
        self._engine = engine
        self._host_class = host_class
        self._proofs = proofs
        self._allow_tcg = allow_tcg
        self._wanted: tuple[PackageDigest, ...] | None = None
        self._proved = proofs.known()
        self._held: tuple[PackageDigest, ...] = ()
        self._trouble: str | None = "the control plane has not said yet which packages it wants"
        self._fault: str | None = None
        self._stages_s = dict(stages_s or {})
        self._changed = asyncio.Event()
        self._tests: set[RunnerId] = set()

    def heartbeat(self) -> Heartbeat:
        """Say how this host is."""
        return Heartbeat(
            boot_id=self.boot_id,
            ready=self._trouble is None,
            not_ready_because=self._trouble,
            host_class=self._host_class,
            packages=self._held,
            runners=tuple(report for report in self._engine.reports() if report.runner_id not in self._tests),
            trouble=self._fault,
            stages_s={name: round(took_s, 3) for name, took_s in self._stages_s.items()},
        )

    def want(self, packages: tuple[PackageDigest, ...]) -> None:
        """Note what the control plane wants here; a package that is held and not wanted any more does no harm."""
        if packages != self._wanted:
            self._wanted = packages
            self._changed.set()

    async def prove(self) -> None:
        """Prove what is wanted, for ever: anew for each wish, again after a trouble that may pass."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            self._trouble = self._fault = await self._prove_once(self._wanted or ())
            _log.info("host_ready" if self._trouble is None else "host_not_ready", why=self._trouble)
            if self._trouble is not None:
                await asyncio.sleep(RETRY_INTERVAL_S)
                self._changed.set()

    async def _prove_once(self, packages: tuple[PackageDigest, ...]) -> str | None:
        """Return what keeps this host from being READY."""
        if self._host_class.acceleration is Acceleration.TCG and not self._allow_tcg:
            return "software emulation is no security boundary; use a host with KVM or set SPOT_RUNNER_ALLOW_TCG=1"
        try:
            for package in packages:
                with self._timed("packages_verified"):
                    stock = await self._engine.prepare(package)
                if package not in self._proved:
                    with self._timed("proved"):
                        await self._restore_once(package, stock)
                    self._proved = (*self._proved, package)
                    self._proofs.note(self._proved)
                if package not in self._held:
                    self._held = (*self._held, package)
        except SpotError as error:
            return str(error)
        return None

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        """Add what the block takes, over all packages and attempts."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._stages_s[stage] = self._stages_s.get(stage, 0.0) + time.monotonic() - began

    async def _restore_once(self, package: PackageDigest, stock: Stock) -> None:
        """Restore one guest and end it again; raises what went wrong."""
        machine = stock.machine
        shape = Shape(machine.vcpus, machine.memory_mib, stock.disk_mib)
        name = runner_id(f"selftest-{secrets.token_hex(4)}")
        self._tests.add(name)
        order = BootOrder(name, 1, TEST_NUMBER, package, shape, guest_address(TEST_NUMBER))
        try:
            timings = await self._engine.boot(order)
            _log.info("selftest_passed", package=package, **timings)
        finally:
            await self._engine.stop(name, order.epoch)
