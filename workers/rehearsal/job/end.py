"""End the connection and the beat, and print what the job has seen as one line of JSON."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

MARK = "spot-runner-figures"
LIMIT_S = 40.0
PARTS = ("connection", "beat", "disk")


def read(folder: Path, part: str, end_at: float) -> object:
    """Return the figures of one part once they are there."""
    file = folder / f"{part}.json"
    while not file.exists():
        if time.monotonic() > end_at:
            sys.exit(f"{part} has left no figures: {(folder / part).with_suffix('.log').read_text()[-2000:]}")
        time.sleep(0.05)
    return json.loads(file.read_text())


def main(folder: Path) -> None:
    (folder / "stop").touch()
    end_at = time.monotonic() + LIMIT_S
    figures = {part: read(folder, part, end_at) for part in PARTS}
    sys.stdout.write(f"{MARK} {json.dumps(figures, separators=(',', ':'))}\n")
    connection = figures["connection"]
    if not (isinstance(connection, dict) and connection["survived"]):
        sys.exit(f"the connection did not survive: {connection}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
