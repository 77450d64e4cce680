"""How a host's disk boots: GRUB on a GPT, which the BIOS of every machine starts, and nothing is ever mounted for it.

    sector 0      boot.img: loads the sector that BOOT_SECTOR names, which is
    1 MiB         core.img in a BIOS boot partition: its first sector loads the rest, whose place BLOCKS names
    2 MiB         the root file system: GRUB finds it by its label, and in it what to boot

Which bytes hold those places is GRUB's (include/grub/i386/pc/boot.h): a grub-install would write the same two numbers,
but into a disk that this machine has.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

SECTOR: Final = 512
BOOT_AT: Final = 2048
ROOT_AT: Final = 4096
LABEL: Final = "spot-runner-host"
# The rest of the first sector is the partition table's.
BOOT_CODE: Final = 440
BOOT_SECTOR: Final = 0x5C
BLOCKS: Final = SECTOR - 12
# What GRUB needs to find the kernel; it reads none of its modules from the disk.
MODULES: Final = (
    "biosdisk",
    "part_gpt",
    "ext2",
    "search",
    "search_label",
    "configfile",
    "normal",
    "linux",
    "echo",
    "serial",
    "terminal",
)
PREFIX: Final = "/boot/grub"
EARLY: Final = f"search --no-floppy --label --set=root {LABEL}\nconfigfile ($root){PREFIX}/grub.cfg\n"
# The virtual and the serial console: clouds show one or the other.
CONSOLES: Final = ("console=tty0", "console=ttyS0,115200")
ALWAYS: Final = ("net.ifnames=0", "panic=10")


def partitions() -> str:
    """Return the partition table, as sfdisk reads it."""
    bios_boot, linux = "21686148-6449-6E6F-744E-656564454649", "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
    return (
        "label: gpt\nunit: sectors\n"
        f"start={BOOT_AT}, size={ROOT_AT - BOOT_AT}, type={bios_boot}\n"
        f"start={ROOT_AT}, type={linux}, name={LABEL}\n"
    )


def menu(kernel: str, initrd: str, arguments: Sequence[str]) -> str:
    """Return grub.cfg: one kernel, at once."""
    line = " ".join((f"root=LABEL={LABEL}", "ro", *CONSOLES, *ALWAYS, *arguments))
    return (
        "serial --unit=0 --speed=115200\nterminal_output console serial\n"
        f"linux /boot/{kernel} {line}\ninitrd /boot/{initrd}\nboot\n"
    )


def first_sector(boot: bytes) -> bytes:
    """Return the code of boot.img, told where core.img begins."""
    code = bytearray(boot[:BOOT_CODE])
    struct.pack_into("<Q", code, BOOT_SECTOR, BOOT_AT)
    return bytes(code)


def core(image: bytes) -> bytes:
    """Return core.img, told where its own second sector is. Raises `ValueError` if it does not fit its partition."""
    if len(image) > (ROOT_AT - BOOT_AT) * SECTOR:
        raise ValueError(f"GRUB's core image has {len(image)} bytes, more than its partition")
    told = bytearray(image)
    struct.pack_into("<Q", told, BLOCKS, BOOT_AT + 1)
    return bytes(told)
