"""The two streams of a move, memory and disk, as QEMU understands them; TLS on both, and the peer's name pinned.

target: keys ─▶ export the empty overlay ─▶ listen for memory
source: keys ─▶ mirror the overlay, every write to both sides ─▶ memory, until little is left ─▶ the guest stands
        ─▶ mirror ends, both disks equal ─▶ the rest of the memory ─▶ completed
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from workers.domain.errors import Refused, SpotError, TryLater, Unreachable
from workers.domain.migration import Ports
from workers.host.pressing import DOWNTIME_MS
from workers.host.qemu import Qemu

# The line decides, not QEMU's own modest default, unless several moves share it.
BANDWIDTH_BYTES_S: Final = 10 << 30
# A peer that does not take a connection would hang QEMU, and with it the guest's disk, for minutes.
REACH_LIMIT_S: Final = 1.0
OPEN_LIMIT_S: Final = 1
NBD_GREETING: Final = b"NBDMAGIC"
# A guest's write may hang for 2 s at most when the peer is lost; cutting the streams comes at the end of that.
CANCEL_LIMIT_S: Final = 5.0
MIB: Final = 1 << 20
MIRROR: Final = "mirror"
REMOTE: Final = "remote"
EVENTS: Final = (
    "MIGRATION",
    "STOP",
    "BLOCK_JOB_READY",
    "BLOCK_JOB_COMPLETED",
    "BLOCK_JOB_CANCELLED",
    "BLOCK_JOB_ERROR",
)
_OVER: Final = frozenset({None, "none", "completed", "failed", "cancelled"})


async def load_keys(qemu: Qemu, keys: Path, endpoint: str) -> None:
    """Let QEMU load this move's keys, for one end of both streams; it needs the files no longer."""
    creds = {"qom-type": "tls-creds-x509", "id": "tls", "dir": str(keys), "endpoint": endpoint, "verify-peer": True}
    await qemu.execute("object-add", creds)


async def listen(qemu: Qemu, address: str, ports: Ports, peer_subject: str) -> None:
    """Open both ports to whoever proves to be the peer. Raises `TryLater` if one of them is taken."""
    await qemu.capabilities(events=True, return_path=True)
    await qemu.execute("object-add", {"qom-type": "authz-simple", "id": "peer", "identity": peer_subject})
    await qemu.execute("migrate-set-parameters", {"tls-creds": "tls", "tls-authz": "peer", "tls-hostname": ""})
    server = {"type": "inet", "data": {"host": address, "port": str(ports.disk)}}
    export = {"id": "disk", "type": "nbd", "node-name": "disk", "name": "disk", "writable": True}
    try:
        await qemu.execute("nbd-server-start", {"addr": server, "tls-creds": "tls", "tls-authz": "peer"})
        await qemu.execute("block-export-add", export)
        await _await_memory(qemu, f"tcp:{address}:{ports.memory}")
    except Refused as error:
        raise TryLater(f"a migration port cannot be opened: {error}") from error


async def _await_memory(qemu: Qemu, uri: str) -> None:
    """Listen for memory, with a QEMU that lives to say why it refuses what comes; one before 9.1 ends instead."""
    try:
        await qemu.execute("migrate-incoming", {"uri": uri, "exit-on-error": False})
    except Refused:
        await qemu.execute("migrate-incoming", {"uri": uri})


async def stop_listening(qemu: Qemu) -> None:
    """Close what `listen` opened; the guest runs meanwhile."""
    for command, arguments in (
        ("nbd-server-stop", {}),
        ("migrate-set-parameters", {"tls-creds": "", "tls-authz": ""}),
        ("object-del", {"id": "peer"}),
        ("object-del", {"id": "tls"}),
    ):
        await _leniently(qemu, command, arguments)


@dataclass(frozen=True)
class Sent:
    """How far the sending of memory is, as QEMU sees it."""

    bytes: int
    remaining_bytes: int
    round: int
    """1 while all memory is sent for the first time."""
    dirty_bytes_s: float
    """What the guest wrote during the last round."""


class Outgoing:
    """The source's end."""

    def __init__(self, qemu: Qemu, address: str, ports: Ports, peer: str) -> None:
        """`peer` is the name in the other side's certificate."""
        self._qemu = qemu
        self._address = address
        self._ports = ports
        self._peer = peer

    async def start_mirror(self) -> None:
        """Begin to copy the disk; every write of the guest goes to both sides from now on."""
        await self._reach()
        server = {"type": "inet", "host": self._address, "port": str(self._ports.disk)}
        # QEMU stands still until the peer has answered, and the guest with it.
        patience = {"open-timeout": OPEN_LIMIT_S}
        remote = {"driver": "nbd", "node-name": REMOTE, "server": server, "export": "disk"} | patience
        await self._qemu.execute("blockdev-add", remote | {"tls-creds": "tls", "tls-hostname": self._peer})
        job = {"job-id": MIRROR, "device": "disk", "target": REMOTE, "sync": "top", "copy-mode": "write-blocking"}
        await self._qemu.execute("blockdev-mirror", job)

    async def start_memory(self) -> None:
        """Begin to send memory; QEMU stops the guest by itself when little is left, and waits."""
        await self._qemu.capabilities(events=True, return_path=True, pause_before_switchover=True)
        await self._qemu.execute(
            "migrate-set-parameters", {"downtime-limit": DOWNTIME_MS} | {"tls-creds": "tls", "tls-hostname": self._peer}
        )
        await self._qemu.execute("migrate", {"uri": f"tcp:{self._address}:{self._ports.memory}"})

    async def allow_downtime(self, allowed_ms: int) -> None:
        """Change how long the guest may stand; takes effect while memory is copied."""
        await self._qemu.execute("migrate-set-parameters", {"downtime-limit": allowed_ms})

    async def end_mirror(self) -> None:
        """Finish the mirror of a guest that stands; QEMU says `BLOCK_JOB_COMPLETED` when both disks are equal."""
        await self._qemu.execute("block-job-cancel", {"device": MIRROR})

    async def switch_over(self) -> None:
        """Send what is left."""
        await self._qemu.execute("migrate-continue", {"state": "pre-switchover"})

    async def cancel(self) -> bool:
        """End both streams, even if QEMU hangs on them; True if the memory had completed before.

        Without completion QEMU lets the guest run again by itself.
        """
        for instance in ({"type": "migration"}, {"type": "block-node", "node-name": REMOTE}):
            with suppress(SpotError):  # there is no such stream any more
                await self._qemu.execute("yank", {"instances": [instance]}, out_of_band=True)
        with self._qemu.hearing("MIGRATION", "JOB_STATUS_CHANGE") as events:
            await _leniently(self._qemu, "migrate_cancel", {})
            await _leniently(self._qemu, "block-job-cancel", {"device": MIRROR, "force": True})
            async with asyncio.timeout(CANCEL_LIMIT_S):
                while not await self._is_over():
                    with suppress(Unreachable):
                        await events.next(limit_s=0.2)
        return (await self._qemu.migration()).get("status") == "completed"

    async def tidy(self) -> None:
        """Let go of what the move needed, so that the guest can be sent again later."""
        await _leniently(self._qemu, "blockdev-del", {"node-name": REMOTE})
        await _leniently(self._qemu, "migrate-set-parameters", {"tls-creds": "", "tls-hostname": ""})
        await _leniently(self._qemu, "object-del", {"id": "tls"})

    async def progress(self) -> tuple[object, object]:
        """Return something that changes as long as the peer takes what we send."""
        ram = (await self._qemu.migration()).get("ram")
        jobs = await self._qemu.execute("query-block-jobs")
        job = jobs[0] if isinstance(jobs, list) and jobs else {"ready": True}
        return (ram.get("transferred") if isinstance(ram, dict) else None, None if job["ready"] else job["offset"])

    async def set_speed(self, mib_s: float | None) -> None:
        """Let both streams carry no more than this each; None: whatever they get. Takes effect at once."""
        speed = BANDWIDTH_BYTES_S if mib_s is None else round(mib_s * MIB)
        await self._qemu.execute("migrate-set-parameters", {"max-bandwidth": speed})
        # A mirror of speed 0 is not limited; what the guest itself writes is not slowed in any case.
        await _leniently(self._qemu, "block-job-set-speed", {"device": MIRROR, "speed": 0 if mib_s is None else speed})

    async def memory_sent(self) -> int:
        """Return how many bytes of memory were sent."""
        return (await self.copied()).bytes

    async def copied(self) -> Sent:
        """Return how far the sending of memory is."""
        ram = (await self._qemu.migration()).get("ram")
        if not isinstance(ram, dict):
            return Sent(0, 0, 0, 0.0)
        dirty_bytes_s = float(ram["dirty-pages-rate"]) * ram["page-size"]
        return Sent(ram["transferred"], ram["remaining"], ram["dirty-sync-count"], dirty_bytes_s)

    async def _reach(self) -> None:
        """Connect, be greeted and hang up: the export does not mind, and QEMU would wait for a dead peer."""
        try:
            async with asyncio.timeout(REACH_LIMIT_S):
                reader, writer = await asyncio.open_connection(self._address, self._ports.disk)
                try:
                    await reader.readexactly(len(NBD_GREETING))
                finally:
                    writer.transport.abort()
        except (OSError, EOFError, TimeoutError) as error:
            raise Unreachable(f"{self._peer} does not take the disk at {self._address}: {error}") from error

    async def _is_over(self) -> bool:
        jobs = await self._qemu.execute("query-block-jobs")
        return (await self._qemu.migration()).get("status") in _OVER and not jobs


async def _leniently(qemu: Qemu, command: str, arguments: Mapping[str, object]) -> None:
    with suppress(Refused):  # it was not there, which is what we want
        await qemu.execute(command, arguments or None)
