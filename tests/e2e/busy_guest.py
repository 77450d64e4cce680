"""A package like the runner's, in which the runner program is `busy_program.py`; made once and kept.

the runner package's disk ─▶ copy, other program ─▶ boot ─▶ snapshot ─▶ /var/cache/spot-runner/busy/<key>
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import subprocess
from pathlib import Path

from workers.domain.names import PackageDigest
from workers.host.packages import Unpacked, locked
from workers.host.rootfs import Disk
from workers.host.template import Template

KEPT = Path("/var/cache/spot-runner/busy")
PROGRAM = Path(__file__).with_name("busy_program.py")
GUEST_PROGRAM = "/opt/spot-runner/busy_program.py"
COMMAND_FILE = "/opt/spot-runner/runner.json"


def busy_package(runner: Unpacked) -> Unpacked:
    """Return the busy guest's package; the first call boots a guest, which takes half a minute."""
    key = hashlib.sha256(runner.digest.encode() + PROGRAM.read_bytes()).hexdigest()[:16]
    kept = KEPT / key
    KEPT.mkdir(parents=True, exist_ok=True)
    with locked(KEPT / f".{key}.lock"):
        if not kept.exists():
            _make(runner, KEPT / f".{key}.partial", kept)
    return Unpacked(PackageDigest(f"sha256:busy-{key}"), runner.manifest, kept)


def _make(runner: Unpacked, partial: Path, kept: Path) -> None:
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    source = Disk(runner.digest, partial / "source")
    source.directory.mkdir()
    for name in ("disk", "kernel", "initrd"):
        _run("cp", "--sparse=always", str(runner.directory / name), str(source.directory / name))
    _replace_program(source.disk, partial / "runner.json")
    template = Template(runner.manifest.machine, source, runner.manifest.kernel.command_line, partial)
    asyncio.run(template.boot())
    for name in ("kernel", "initrd"):
        (source.directory / name).rename(partial / name)
    shutil.rmtree(source.directory)
    partial.rename(kept)


def _replace_program(disk: Path, command: Path) -> None:
    command.write_text(json.dumps({"command": ["/usr/bin/python3", GUEST_PROGRAM]}))
    disk.chmod(0o600)
    for ours, theirs in ((PROGRAM, GUEST_PROGRAM), (command, COMMAND_FILE)):
        _run("debugfs", "-w", "-R", f"rm {theirs}", str(disk))
        _run("debugfs", "-w", "-R", f"write {ours} {theirs}", str(disk))


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=120)
