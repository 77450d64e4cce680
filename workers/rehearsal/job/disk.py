"""Write random bytes to the disk, and read them again at the job's end: `disk.py write|verify FOLDER MIB`."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

CHUNK = 1 << 20


def write(folder: Path, chunks: int) -> bool:
    """Write so many MiB, make sure that they are on the disk, and remember their SHA-256."""
    digest = hashlib.sha256()
    with (folder / "random").open("wb") as file:
        for _ in range(chunks):
            chunk = os.urandom(CHUNK)
            digest.update(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    (folder / "random.sha256").write_text(digest.hexdigest())
    sys.stdout.write(f"wrote {chunks} MiB, sha256 {digest.hexdigest()}\n")
    return True


def verify(folder: Path, chunks: int) -> bool:
    """Read them from the disk, not from the page cache, and compare."""
    digest, size = hashlib.sha256(), 0
    with (folder / "random").open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            size += len(chunk)
    is_same = digest.hexdigest() == (folder / "random.sha256").read_text() and size == chunks * CHUNK
    (folder / "disk.json").write_text(json.dumps({"disk": is_same}))
    sys.stdout.write(
        f"read {size // CHUNK} MiB again, sha256 {digest.hexdigest()}: {'same' if is_same else 'DIFFERENT'}\n"
    )
    return is_same


if __name__ == "__main__":
    act = {"write": write, "verify": verify}[sys.argv[1]]
    sys.exit(0 if act(Path(sys.argv[2]), int(sys.argv[3])) else 1)
