from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field

from workers.domain.messages import BootOrder, MoveOrder
from workers.domain.migration import LINE_FIGURE
from workers.domain.names import HostId, MigrationId, PackageDigest, RunnerId, guest_address
from workers.domain.runner import Shape
from workers.host.copying import Copy
from workers.host.line import Line
from workers.host.streams import MIB, Sent

BOOT = BootOrder(RunnerId("r"), 1, 0, PackageDigest("sha256:00"), Shape(1, 1024, 4096), guest_address(0))


def order(name: str, share_mib_s: float | None = None) -> MoveOrder:
    return MoveOrder(MigrationId(name), BOOT, HostId("b"), "10.90.0.17", 60.0, 1, share_mib_s=share_mib_s)


@dataclass
class Travelling:
    """A guest that writes as fast as it may run, on a line that carries what it carries."""

    line_mib_s: float = 50.0
    dirty_mib_s: float = 200.0
    cap: float = 1.0
    sent_mib: float = 0.0
    speed: float | None = None
    downtime_ms: int = 30
    clock_s: float = 0.0
    caps: list[float] = field(default_factory=list)

    async def press(self, cap: float) -> None:
        self.cap = cap
        self.caps.append(cap)

    async def relieve(self) -> None:
        self.cap = 1.0

    async def set_speed(self, mib_s: float | None) -> None:
        self.speed = mib_s

    async def allow_downtime(self, allowed_ms: int) -> None:
        self.downtime_ms = allowed_ms

    async def copied(self) -> Sent:
        rounds = 1 + int(self.sent_mib // 200)
        return Sent(round(self.sent_mib * MIB), 100 * MIB, rounds, self.dirty_mib_s * self.cap * MIB)

    def pass_time(self, seconds: float) -> None:
        self.clock_s += seconds
        self.sent_mib += seconds * min(self.line_mib_s, self.speed or self.line_mib_s)


async def look(copy: Copy, guest: Travelling, seconds: int, left_s: float = 100.0) -> None:
    for _ in range(seconds * 4):
        await copy.keep_share(guest)
        await copy.look(guest, guest.clock_s, left_s)
        guest.pass_time(0.25)


def test_a_busy_guest_is_pressed_after_the_first_round_and_relieved_at_the_end() -> None:
    guest, figures = Travelling(), dict[str, float]()
    copy = Copy(guest, order("a"), Line(), figures)
    copy.begin()

    async def story() -> None:
        await look(copy, guest, seconds=3)
        assert guest.caps == []
        await look(copy, guest, seconds=9)
        assert guest.cap == 0.1
        await copy.relieve()

    asyncio.run(story())
    assert guest.caps == [0.1]
    assert figures == {LINE_FIGURE: 50.0, "dirty_mib_s": 200.0, "cap_percent": 10}
    assert guest.cap == 1.0


@dataclass
class Slow(Travelling):
    """The kernel takes its time to put a cap on, and does it even if nobody waits any more."""

    may_press: asyncio.Event = field(default_factory=asyncio.Event)

    async def press(self, cap: float) -> None:
        await self.may_press.wait()
        await super().press(cap)


def test_a_cap_that_is_still_being_put_on_does_not_outlive_the_move() -> None:
    async def story() -> float:
        guest = Slow(sent_mib=400.0)
        copy = Copy(guest, order("a"), Line(), {})
        copy.begin()
        await copy.look(guest, 0.0, 100.0)
        guest.sent_mib += 60
        with suppress(TimeoutError):
            async with asyncio.timeout(0.01):
                await copy.look(guest, 1.2, 100.0)
        relieving = asyncio.create_task(copy.relieve())
        await asyncio.sleep(0)
        guest.may_press.set()
        await relieving
        assert guest.caps, "it was put on"
        await copy.look(guest, 2.0, 1.0)
        return guest.cap

    assert asyncio.run(story()) == 1.0


def test_a_calm_guest_is_left_alone() -> None:
    guest = Travelling(dirty_mib_s=10.0)
    copy = Copy(guest, order("a"), Line(), {})
    copy.begin()
    asyncio.run(look(copy, guest, seconds=12))
    assert (guest.caps, guest.downtime_ms, guest.speed) == ([], 30, None)


def test_it_keeps_to_its_share_while_another_move_has_its_own() -> None:
    guest, line = Travelling(dirty_mib_s=0.0), Line()
    copy, other = Copy(guest, order("a", 20.0), line, {}), Copy(Travelling(), order("b", 30.0), line, {})
    copy.begin()
    other.begin()
    asyncio.run(look(copy, guest, seconds=1))
    assert guest.speed == 20.0
    other.end()
    asyncio.run(look(copy, guest, seconds=1))
    assert guest.speed is None
