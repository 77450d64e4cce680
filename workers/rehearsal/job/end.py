"""End the connection and the beat, and print what the job has seen: JSON, in as many marked lines as it takes."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

MARK = "spot-runner-figures"
LIMIT_S = 40.0
# A runner may break longer lines of a log.
LINE_MAX = 8000
PARTS = ("connection", "beat", "disk")


def read(folder: Path, part: str, end_at: float) -> object:
    """Return the figures of one part once they are there."""
    file = folder / f"{part}.json"
    while not file.exists():
        if time.monotonic() > end_at:
            sys.exit(f"{part} has left no figures: {(folder / part).with_suffix('.log').read_text()[-2000:]}")
        time.sleep(0.05)
    return json.loads(file.read_text())


def lines_of(figures: dict[str, object]) -> list[str]:
    """Return the lines whose texts behind the mark make up the JSON."""
    whole = json.dumps(figures, separators=(",", ":"))
    return [f"{MARK} {whole[first : first + LINE_MAX]}" for first in range(0, len(whole), LINE_MAX)]


def main(folder: Path) -> None:
    (folder / "stop").touch()
    end_at = time.monotonic() + LIMIT_S
    figures = {part: read(folder, part, end_at) for part in PARTS}
    sys.stdout.writelines(f"{line}\n" for line in lines_of(figures))
    connection = figures["connection"]
    if not (isinstance(connection, dict) and connection["survived"]):
        sys.exit(f"the connection did not survive: {connection}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
