"""Work lightly for some seconds, and notice if memory is not what was written: `work.py SECONDS [BELL]`.

If the file BELL is there the work is over: somebody has rung.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

PAGE = 4096
PAGES = 2048
# A quarter of the memory is written anew each time, so that there is something to send while it is sent.
SHARE = 4
PAUSE_S = 0.25


def work(seconds: float, bell: Path | None = None) -> bool:
    """Write pages round and round; say whether all of them hold what was written last."""
    memory, last = bytearray(PAGE * PAGES), [0] * PAGES
    end, rounds = time.monotonic() + seconds, 0
    while time.monotonic() < end and not (bell and bell.exists()):
        rounds += 1
        for page in range(rounds % SHARE, PAGES, SHARE):
            memory[page * PAGE] = last[page] = rounds & 255
        time.sleep(PAUSE_S)
    is_whole = all(memory[page * PAGE] == last[page] for page in range(PAGES))
    sys.stdout.write(f"wrote {rounds} times: {'whole' if is_whole else 'DIFFERENT'}\n")
    return is_whole


if __name__ == "__main__":
    sys.exit(0 if work(float(sys.argv[1]), *map(Path, sys.argv[2:])) else 1)
