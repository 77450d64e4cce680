"""A builder's machine as far as packages go: its files, and those lines of its script, run for real in a folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from images.builder import SCRIPT, VOUCHER
from images.root import PROGRAM, SHELF
from tests.unit.small_package import small_manifest, write_devices
from workers.domain.names import PackageDigest
from workers.domain.published import PART_BYTES
from workers.host.manifest import MIB
from workers.host.packages import PackageShelf

T = TypeVar("T")

CHECKOUT = Path(__file__).parents[2]
LIMIT_S = 100
RUN = "from workers.cli import main; main()"


@dataclass(frozen=True)
class Played:
    """Where it is played."""

    root: Path

    @property
    def shelf(self) -> Path:
        return self.root / SHELF

    @property
    def voucher(self) -> Path:
        return Path(f"{self.root}{VOUCHER}")

    @property
    def console(self) -> str:
        return (self.root / "console").read_text()

    @property
    def arguments(self) -> str:
        """What its program was called with, as every user of the machine can see it."""
        return (self.root / "arguments").read_text()

    def write_files(self, user_data: str) -> str:
        """Do as cloud-init does, and return the script."""
        told = json.loads(user_data.partition("\n")[2])
        for one in told["write_files"]:
            file = Path(f"{self.root}{one['path']}")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(one["content"])
            file.chmod(int(one["permissions"], 8))
        (program := self.root / PROGRAM / "bin/spot-runner").parent.mkdir(parents=True, exist_ok=True)
        program.write_text(f'#!/bin/sh\necho "$@" >> {self.root}/arguments\nexec {sys.executable} -c "{RUN}" "$@"\n')
        program.chmod(0o755)
        return Path(f"{self.root}{SCRIPT}").read_text()

    def begin(self, user_data: str) -> subprocess.Popen[str]:
        """Run the lines that fetch packages, with the script's own head."""
        script = self.write_files(user_data)
        head = script[: script.index("export DEBIAN_FRONTEND")].replace("/dev/console", f"{self.root}/console")
        lines = script[script.index('step="the runners\' packages"') : script.index('step="what a host is"')]
        for place in ("/root/", "/opt/", "/var/"):
            lines = lines.replace(f" {place}", f" {self.root}{place}").replace(f"({place}", f"({self.root}{place}")
        return subprocess.Popen(
            ["sh", "-c", f"{head}{lines}"],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": f"{CHECKOUT}:{CHECKOUT / 'runner-vm'}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, user_data: str) -> int:
        code, said, _ = ended(self.begin(user_data))
        (self.root / "said").write_text(said)
        return code


def command(words: Sequence[str], environment: dict[str, str]) -> subprocess.Popen[str]:
    """Start `spot-runner`."""
    return subprocess.Popen(
        [sys.executable, "-c", RUN, *words],
        env={**os.environ, "PYTHONPATH": f"{CHECKOUT}:{CHECKOUT / 'runner-vm'}", "COLUMNS": "200", **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(one: subprocess.Popen[str], given: str | None = None) -> tuple[int, str, str]:
    """Wait for a process; return its status, and what it said and complained of. It does not outlive the wait."""
    with one:
        try:
            said, complained = one.communicate(given, timeout=LIMIT_S)
        finally:
            one.kill()
    return one.returncode, said, complained


def until(look: Callable[[], T]) -> T:
    """Look again and again until there is something."""
    end = time.monotonic() + LIMIT_S
    while not (found := look()):
        assert time.monotonic() < end, "it was not to be seen in time"
        time.sleep(0.05)
    return found


def make_package(home: Path, seed: int = 1) -> tuple[PackageDigest, Path]:
    """Make a package that is whole, and some parts long."""
    (home / f"devices-{seed}").mkdir(parents=True)
    devices = write_devices(home / f"devices-{seed}")
    devices["initrd"].write_bytes(os.urandom(2 * PART_BYTES + seed * MIB))
    shelf = PackageShelf(home / "packages", home / "unpacked")
    digest = shelf.add(devices, small_manifest)
    return digest, shelf.path(digest)
