"""READY is proved: nothing that is missing, broken or not restored yet lets a host be given runners."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from tests.fakes.classes import EMULATED, VIRTUALIZED
from tests.fakes.engine import FakeEngine
from workers.domain.errors import TryLater
from workers.domain.messages import BootOrder
from workers.domain.names import PackageDigest, RunnerId, guest_address
from workers.domain.runner import Shape
from workers.host.packages import BOOT_ID
from workers.host.proofs import Proofs
from workers.host.readiness import TEST_NUMBER, Readiness

ONE, OTHER = PackageDigest("sha256:" + "1" * 64), PackageDigest("sha256:" + "2" * 64)


class Nothing:
    """Remembers nothing."""

    def known(self) -> tuple[PackageDigest, ...]:
        return ()

    def note(self, packages: tuple[PackageDigest, ...]) -> None:
        assert packages


def proving(readiness: Readiness, play: Callable[[], Awaitable[None]]) -> None:
    """Let the proof run beside a play, which must end soon."""

    async def both() -> None:
        proof = asyncio.ensure_future(readiness.prove())
        try:
            async with asyncio.timeout(20):
                await play()
        finally:
            proof.cancel()

    asyncio.run(both())


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110  what is waited for tells nobody
        await asyncio.sleep(0.01)


def test_nothing_is_proved_before_it_is_known_what_is_wanted() -> None:
    heartbeat = Readiness(FakeEngine(), VIRTUALIZED, Nothing(), allow_tcg=False).heartbeat()
    assert not heartbeat.ready
    assert heartbeat.not_ready_because
    assert heartbeat.host_class == VIRTUALIZED


def test_a_wanted_package_is_restored_once_and_nothing_of_it_is_left() -> None:
    engine = FakeEngine(shelf={ONE})
    readiness = Readiness(engine, VIRTUALIZED, Nothing(), allow_tcg=False)

    async def play() -> None:
        readiness.want((ONE,))
        await until(lambda: readiness.heartbeat().ready)
        readiness.want((ONE,))

    proving(readiness, play)
    heartbeat = readiness.heartbeat()
    assert (heartbeat.ready, heartbeat.not_ready_because, heartbeat.packages) == (True, None, (ONE,))
    assert [(order.package, order.number) for order in engine.booted] == [(ONE, TEST_NUMBER)]
    assert not engine.epochs


def test_every_wanted_package_is_proved() -> None:
    engine = FakeEngine(shelf={ONE, OTHER})
    readiness = Readiness(engine, VIRTUALIZED, Nothing(), allow_tcg=False)

    async def play() -> None:
        readiness.want((ONE,))
        await until(lambda: readiness.heartbeat().ready)
        readiness.want((ONE, OTHER))
        await until(lambda: readiness.heartbeat().packages == (ONE, OTHER))

    proving(readiness, play)
    assert {order.package for order in engine.booted} == {ONE, OTHER}
    assert len(engine.booted) == 2
    assert engine.most_at_once == 1


def test_a_missing_package_is_named_and_looked_for_again() -> None:
    engine = FakeEngine()
    readiness = Readiness(engine, VIRTUALIZED, Nothing(), allow_tcg=False)

    async def play() -> None:
        readiness.want((ONE,))
        await until(lambda: ONE in (readiness.heartbeat().not_ready_because or ""))
        assert not readiness.heartbeat().ready
        engine.shelf.add(ONE)
        await until(lambda: readiness.heartbeat().ready)

    proving(readiness, play)


def test_a_restore_that_fails_keeps_the_host_from_being_ready_and_leaves_nothing() -> None:
    engine = FakeEngine(shelf={ONE}, trouble=TryLater("the agent did not answer"))
    readiness = Readiness(engine, VIRTUALIZED, Nothing(), allow_tcg=False)

    async def play() -> None:
        readiness.want((ONE,))
        await until(lambda: readiness.heartbeat().not_ready_because == "the agent did not answer")
        assert readiness.heartbeat().packages == ()
        assert not engine.epochs
        await until(lambda: readiness.heartbeat().ready)

    proving(readiness, play)


@pytest.mark.parametrize("allowed", [True, False])
def test_software_emulation_is_ready_only_where_it_is_allowed(*, allowed: bool) -> None:
    engine = FakeEngine(shelf={ONE})
    readiness = Readiness(engine, EMULATED, Nothing(), allow_tcg=allowed)

    async def play() -> None:
        readiness.want((ONE,))
        if allowed:
            await until(lambda: readiness.heartbeat().ready)
        else:
            await until(lambda: "SPOT_RUNNER_ALLOW_TCG" in (readiness.heartbeat().not_ready_because or ""))

    proving(readiness, play)
    assert bool(engine.booted) is allowed


def test_the_proofs_own_microvm_is_nobodys_runner() -> None:
    """The control plane would take an unknown runner in a heartbeat for a leak."""
    engine = Watched(shelf={ONE})
    readiness = Readiness(engine, VIRTUALIZED, Nothing(), allow_tcg=False)
    engine.look = lambda: {report.runner_id for report in readiness.heartbeat().runners}
    real = BootOrder(RunnerId("spot-runner-a"), 1, 0, ONE, Shape(1, 1024, 4096), guest_address(0))

    async def play() -> None:
        await engine.boot(real)
        readiness.want((ONE,))
        await until(lambda: readiness.heartbeat().ready)

    proving(readiness, play)
    assert engine.seen == [{real.runner_id}, {real.runner_id}]


class Watched(FakeEngine):
    """Notes who is in the heartbeat while a boot is going on."""

    look: Callable[[], set[RunnerId]]
    seen: ClassVar[list[set[RunnerId]]] = []

    async def boot(self, order: BootOrder) -> dict[str, float]:
        timings = await super().boot(order)
        self.seen.append(self.look())
        return dict(timings)


def test_what_an_earlier_daemon_has_proved_since_the_boot_is_not_restored_again(tmp_path: Path) -> None:
    engine = FakeEngine(shelf={ONE, OTHER})
    for wanted in ((ONE,), (ONE, OTHER)):
        readiness = Readiness(
            engine, VIRTUALIZED, Proofs(tmp_path / "host" / "proofs.json", VIRTUALIZED), allow_tcg=False
        )

        async def play(readiness: Readiness = readiness, wanted: tuple[PackageDigest, ...] = wanted) -> None:
            readiness.want(wanted)
            await until(lambda: readiness.heartbeat().packages == wanted)

        proving(readiness, play)
    assert [order.package for order in engine.booted] == [ONE, OTHER]


def test_a_proof_is_worth_nothing_with_another_monitor_or_after_a_reboot(tmp_path: Path) -> None:
    file = tmp_path / "proofs.json"
    Proofs(file, VIRTUALIZED).note((ONE,))
    assert Proofs(file, VIRTUALIZED).known() == (ONE,)
    assert Proofs(file, replace(VIRTUALIZED, monitor_version="10.0")).known() == ()
    file.write_text(file.read_text().replace(BOOT_ID.read_text().strip(), "another"))
    assert Proofs(file, VIRTUALIZED).known() == ()
    file.write_text("{")
    assert Proofs(file, VIRTUALIZED).known() == ()
