"""Beat every 5 ms and keep the longest gap of every tenth of a second, so that a pause can be found afterwards."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

BEAT_S = 0.005
BUCKET_S = 0.1


def beat(stop: Path) -> dict[str, object]:
    """Beat until the file `stop` is there; a gap counts for the tenth of a second in which it ended.

    The loop does next to nothing, since an emulated processor feels two hundred beats a second.
    """
    began_at, gaps = time.time(), list[float]()
    began = last = time.monotonic()
    longest, bucket_end = 0.0, began + BUCKET_S
    while True:
        time.sleep(BEAT_S)
        now = time.monotonic()
        longest, last = max(longest, now - last), now
        if now >= bucket_end:
            skipped = int((now - bucket_end) / BUCKET_S)
            gaps += [*[0.0] * skipped, longest]
            longest, bucket_end = 0.0, bucket_end + (1 + skipped) * BUCKET_S
            if stop.exists():
                break
    filled = [round(gap * 1000, 1) for gap in gaps]
    return {"began_at": began_at, "bucket_s": BUCKET_S, "gaps_ms": filled, "cpu_s": round(time.process_time(), 2)}


def main(folder: Path) -> None:
    figures = beat(folder / "stop")
    (folder / "beat.draft").write_text(json.dumps(figures))
    (folder / "beat.draft").rename(folder / "beat.json")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
