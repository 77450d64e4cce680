"""Start what accompanies the job from its first step to its last: the connection and the beat."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main(address: str, port: str, folder: Path) -> None:
    folder.mkdir()
    commands = {"connection": [address, port, str(folder)], "beat": [str(folder)]}
    for name, arguments in commands.items():
        with (folder / f"{name}.log").open("wb") as log:
            subprocess.Popen(
                [sys.executable, str(HERE / f"{name}.py"), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # the step ends, they go on
            )
    sys.stdout.write(f"holding a connection to {address}:{port}\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
