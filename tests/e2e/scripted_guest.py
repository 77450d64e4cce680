"""A package like the runner's whose runner program is whatever script a test hands it; made once and kept.

the runner package's disk ─▶ copy, other program ─▶ boot ─▶ snapshot ─▶ /var/cache/spot-runner/scripted/<key>

The script comes as the just-in-time configuration, and what it prints comes back over the console.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import secrets
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from workers.domain.names import PackageDigest
from workers.host.disks import Stock
from workers.host.guest import GuestChannel
from workers.host.machine import Overlay, PackageMemory, Wiring
from workers.host.packages import Unpacked, locked
from workers.host.qemu import Qemu
from workers.host.rootfs import Disk
from workers.host.template import Template
from workers.host.unpacking import UNPACKED

KEPT = Path("/var/cache/spot-runner/scripted")
LIMIT_S = 240.0
HOLD_LIMIT_S = 600
COMMAND_FILE = "/opt/spot-runner/runner.json"
COMMAND = ["/usr/bin/python3", "-c", "import os; exec(os.environ['ACTIONS_RUNNER_INPUT_JITCONFIG'])"]


def scripted_package(runner: Unpacked) -> Unpacked:
    """Return the package; the first call boots a guest, which takes half a minute."""
    key = hashlib.sha256(f"{runner.digest} {COMMAND} {UNPACKED}".encode()).hexdigest()[:16]
    kept = KEPT / key
    KEPT.mkdir(parents=True, exist_ok=True)
    with locked(KEPT / f".{key}.lock"):
        if not kept.exists():
            _make(runner, KEPT / f".{key}.partial", kept)
    return Unpacked(PackageDigest(f"sha256:scripted-{key}"), runner.manifest, kept)


def _make(runner: Unpacked, partial: Path, kept: Path) -> None:
    shutil.rmtree(partial, ignore_errors=True)
    source = Disk(runner.digest, partial / "source")
    source.directory.mkdir(parents=True)
    for name in ("disk", "kernel", "initrd"):
        _run("cp", "--sparse=always", str(runner.directory / name), str(source.directory / name))
    source.disk.chmod(0o600)
    (partial / "runner.json").write_text(json.dumps({"command": COMMAND}))
    _run("debugfs", "-w", "-R", f"rm {COMMAND_FILE}", str(source.disk))
    _run("debugfs", "-w", "-R", f"write {partial / 'runner.json'} {COMMAND_FILE}", str(source.disk))
    asyncio.run(Template(runner.manifest.machine, source, runner.manifest.kernel.command_line, partial).boot())
    for name in ("kernel", "initrd"):
        (source.directory / name).rename(partial / name)
    shutil.rmtree(source.directory)
    (partial / "memory").chmod(UNPACKED)
    partial.rename(kept)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=120)


@contextmanager
def stocked(package: Unpacked) -> Iterator[Stock]:
    """Make a package ready to start guests from."""
    with tempfile.TemporaryDirectory(prefix="spot-scripted.") as directory:
        stock = Stock.make(package, Path(directory))
        try:
            yield stock
        finally:
            stock.close()


def identity(number: int) -> dict[str, Any]:
    """Return who the guest with this number is to become, now."""
    return {
        "seed": secrets.token_hex(32),
        "now": time.time(),
        "machine_id": f"{number:032x}",
        "hostname": f"spot-runner-{number}",
        "mac": f"52:54:00:77:01:{number:02x}",
        "ip": f"10.77.1.{number}",
        "prefix_length": 16,
        "gateway": "10.77.0.1",
        "gateway_mac": "52:54:00:77:00:01",
        "mtu": 1370,
    }


async def printed(stock: Stock, number: int, script: str) -> dict[str, Any]:
    """Restore a guest, let it become somebody, run the script as its runner; return the JSON object that it printed.

    Under `status` is what its agent says of its runner after that.
    """
    with tempfile.TemporaryDirectory(prefix="spot-scripted.") as name:
        directory = Path(name)
        overlay = stock.open_overlay(directory)
        wiring = Wiring(
            PackageMemory(stock.memory),
            Overlay(overlay, stock.base),
            stock.boot,
            console=directory / "console",
            incoming=True,
        )
        qemu = await Qemu.start(stock.machine, wiring, directory)
        try:
            await _woken(qemu, stock, directory, number, script)
            found = await asyncio.to_thread(_found, directory / "console")
            return found | {"status": await _told(directory, "RunnerStatus")}
        finally:
            await qemu.quit()
            os.close(overlay)


async def _woken(qemu: Qemu, stock: Stock, directory: Path, number: int, script: str) -> None:
    with stock.state.open("rb") as state:
        await qemu.restore(state.fileno())
    await qemu.run()
    await _told(directory, "AfterResume", "restored", identity(number))
    await _told(directory, "Placed", {"runner_id": "r", "host_id": "h", "moves": 0, "hold_limit_s": HOLD_LIMIT_S})
    await _told(directory, "StartRunner", script)


async def _told(directory: Path, function: str, *args: object) -> object:
    guest = await GuestChannel.connect(directory / "agent", LIMIT_S)
    try:
        return await guest.call(function, *args, limit_s=LIMIT_S)
    finally:
        await guest.close()


def _found(console: Path) -> dict[str, Any]:
    """Wait for the line `FOUND {...}` on the console."""
    end, pause = time.monotonic() + LIMIT_S, threading.Event()
    while time.monotonic() < end:
        text = console.read_text(errors="replace")
        _, marker, rest = text.partition("FOUND ")
        if marker and "\n" in rest:
            found: dict[str, Any] = json.loads(rest.partition("\n")[0])
            return found
        assert "Traceback" not in text, text[-800:]
        pause.wait(0.05)
    raise AssertionError(f"the script printed nothing within {LIMIT_S} s; console: {console.read_text()[-800:]}")
