"""End the witness, and print what the job has seen: JSON, in as many marked lines as it takes."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

Json = dict[str, Any]

MARK = "spot-runner-figures"
LIMIT_S = 40.0
# A runner may break longer lines of a log.
LINE_MAX = 8000


def read(folder: Path, part: str, end_at: float) -> Json:
    """Return the figures of one part once they are there."""
    file = folder / f"{part}.json"
    while not file.exists():
        if time.monotonic() > end_at:
            sys.exit(f"{part} has left no figures: {(folder / part).with_suffix('.log').read_text()[-2000:]}")
        time.sleep(0.05)
    figures: Json = json.loads(file.read_text())
    return figures


def lines_of(figures: Json) -> list[str]:
    """Return the lines whose texts behind the mark make up the JSON."""
    whole = json.dumps(figures, separators=(",", ":"))
    return [f"{MARK} {whole[first : first + LINE_MAX]}" for first in range(0, len(whole), LINE_MAX)]


def main(folder: Path) -> None:
    (folder / "stop").touch()
    end_at = time.monotonic() + LIMIT_S
    figures = {**read(folder, "witness", end_at), **read(folder, "disk", end_at)}
    sys.stdout.writelines(f"{line}\n" for line in lines_of(figures))
    if not figures["connection"]["survived"]:
        sys.exit(f"the connection did not survive: {figures['connection']['broken']}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
