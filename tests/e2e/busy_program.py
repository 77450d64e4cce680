"""A guest's work that notices if anything of it was lost: runs inside the guest, in the runner program's place.

It writes memory and disk without pause, checks both at the end, and says by its exit code what it found:
0 all is right, 1 memory is wrong, 2 the disk is wrong. Its order (JSON) comes as the just-in-time configuration.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
import zlib
from pathlib import Path

PAGE = 4096
BLOCK = 1 << 20
FILE = Path("/home/runner/_work/busy.bin")


def block(number: int) -> bytes:
    """Contents that no other block has and that cannot be guessed from a neighbour."""
    piece = hashlib.sha256(str(number).encode()).digest()
    return piece * (BLOCK // len(piece))


def work(
    seconds: float, memory_mib: int, disk_mib: int, pace_s: float = 0.0, random_mib: int = 0, toil_bytes: int = 0
) -> int:
    """Be busy for so long, then check; the memory is written once per `pace_s`, the disk gets `disk_mib` in all.

    `random_mib` more are held that nothing can make smaller. `toil_bytes` are hashed for each page, so that how fast it
    writes depends on the processor that it gets.
    """
    held = os.urandom(random_mib << 20)
    known = zlib.adler32(held)
    end = time.monotonic() + seconds
    memory = bytearray(memory_mib << 20)
    rounds = written = 0
    toil = bytes(toil_bytes)
    with FILE.open("w+b", buffering=0) as file:
        while time.monotonic() < end or written < disk_mib:
            rounds += 1
            time.sleep(pace_s)
            for place in range(0, len(memory), PAGE):
                hashlib.sha256(toil)
                memory[place] = rounds & 255
            if written < disk_mib:
                file.write(block(written))
                written += 1
                os.fsync(file.fileno())
        if any(memory[place] != rounds & 255 for place in range(0, len(memory), PAGE)) or zlib.adler32(held) != known:
            return 1
        # What lies in the guest's own cache proves nothing about its disk.
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        file.seek(0)
        return 0 if all(file.read(BLOCK) == block(number) for number in range(written)) else 2


if __name__ == "__main__":
    sys.exit(work(**json.loads(os.environ["ACTIONS_RUNNER_INPUT_JITCONFIG"])))
