"""Start the witness, which accompanies the job from its first step to its last."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

WITNESS = Path(__file__).parent / "witness.py"


def main(address: str, port: str, folder: Path) -> None:
    folder.mkdir()
    with (folder / "witness.log").open("wb") as log:
        subprocess.Popen(
            [sys.executable, str(WITNESS), address, port, str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # the step ends, it goes on
        )
    sys.stdout.write(f"holding a connection to {address}:{port}\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
