"""A machine of a cloud, played by QEMU: it boots an image, finds user data on a small disk, and has a console."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

END_LIMIT_S = 30.0
# QEMU's own network: the machine is at .15, and whoever started it answers at this address.
OUTSIDE = "10.0.2.2"


@dataclass(frozen=True)
class Machine:
    """One that was started."""

    process: subprocess.Popen[bytes]
    console: Path

    @property
    def said(self) -> str:
        """What it has written on its serial line."""
        return self.console.read_bytes().decode(errors="replace") if self.console.exists() else ""

    @property
    def is_on(self) -> bool:
        return self.process.poll() is None


def write_seed(folder: Path, name: str, user_data: str) -> None:
    """Write what cloud-init's NoCloud reads from a volume called cidata."""
    folder.mkdir()
    (folder / "user-data").write_text(user_data)
    (folder / "meta-data").write_text(json.dumps({"instance-id": name, "local-hostname": name}) + "\n")


@contextlib.contextmanager
def running(image: Path, seed: Path, work: Path, memory_mib: int = 4096, vcpus: int = 2) -> Iterator[Machine]:
    """Run the machine on a throw-away overlay of the image; it is gone at the end, whatever happened."""
    overlay, console = work / "overlay.qcow2", work / "console"
    backing = ["-b", str(image.resolve()), "-F", "qcow2", str(overlay), "20G"]
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *backing], check=True, timeout=60)
    volume = f"driver=vvfat,node-name=seed,dir={seed},label=cidata,read-only=on"
    command = [
        *("qemu-system-x86_64", "-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max"),
        *("-smp", str(vcpus), "-m", str(memory_mib), "-display", "none", "-nodefaults", "-vga", "std", "-no-reboot"),
        *("-drive", f"if=none,id=disk,format=qcow2,file={overlay},cache=unsafe"),
        *("-device", "virtio-blk-pci,drive=disk,bootindex=0"),  # the BIOS would begin with the other one
        *("-blockdev", volume, "-device", "virtio-blk-pci,drive=seed"),
        *("-netdev", "user,id=net0", "-device", "virtio-net-pci,netdev=net0", "-device", "virtio-rng-pci"),
        *("-serial", f"file:{console}"),
    ]
    with (work / "qemu.log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield Machine(process, console)
    finally:
        process.terminate()
        try:
            process.wait(END_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(END_LIMIT_S)
