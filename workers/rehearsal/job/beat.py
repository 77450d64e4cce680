"""Beat every 5 ms and keep the longest gap of every tenth of a second, so that a pause can be found afterwards."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

BEAT_S = 0.005
BUCKET_S = 0.1


def beat(stop: Path) -> dict[str, object]:
    """Beat until the file `stop` is there; a gap counts for the tenth of a second in which it ended."""
    began_at = time.time()
    gaps: dict[int, float] = {}
    last = time.monotonic()
    bucket = seen = 0
    while bucket == seen or not stop.exists():
        seen = bucket
        time.sleep(BEAT_S)
        now = time.monotonic()
        bucket = int((time.time() - began_at) / BUCKET_S)
        gaps[bucket] = max(gaps.get(bucket, 0.0), now - last)
        last = now
    filled = [round(gaps.get(number, 0.0) * 1000, 1) for number in range(max(gaps) + 1)]
    return {"began_at": began_at, "bucket_s": BUCKET_S, "gaps_ms": filled}


def main(folder: Path) -> None:
    figures = beat(folder / "stop")
    (folder / "beat.draft").write_text(json.dumps(figures))
    (folder / "beat.draft").rename(folder / "beat.json")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
