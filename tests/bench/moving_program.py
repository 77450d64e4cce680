"""The work of a guest that is moved again and again: runs inside the guest, from the files beside it.

It writes memory and disk in rounds and checks both at the end of each, and keeps a beat and a conversation with the
echo server meanwhile. One connection to the desk says when to end, and takes what was found:
`{"rounds", "wrong" (exit codes of the rounds that found something wrong), "witness"}`.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

LIMIT_S = 120.0


def rounds(program: Path, work: str, ended: threading.Event) -> list[int]:
    """Work round after round; return what each of them found: 0 is right."""
    found = []
    environment = {**os.environ, "ACTIONS_RUNNER_INPUT_JITCONFIG": work}
    while not ended.is_set():
        found.append(
            subprocess.run([sys.executable, program], check=False, env=environment, timeout=LIMIT_S).returncode
        )
    return found


def main(folder: Path, internet: str, echo_port: str, desk_port: str, work: str) -> None:
    """Work until the desk says that it is enough, and tell it what was found."""
    ended, found = threading.Event(), []
    with socket.create_connection((internet, int(desk_port)), timeout=LIMIT_S) as desk:
        witness = subprocess.Popen([sys.executable, folder / "witness.py", internet, echo_port, folder])
        busy = threading.Thread(target=lambda: found.extend(rounds(folder / "busy_program.py", work, ended)))
        busy.start()
        desk.settimeout(None)  # for as long as there are moves
        desk.recv(1)
        ended.set()
        busy.join()
        (folder / "stop").touch()
        witness.wait(LIMIT_S)
        told = {"rounds": len(found), "wrong": [code for code in found if code]}
        told["witness"] = json.loads((folder / "witness.json").read_text())
        desk.sendall(json.dumps(told).encode())


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
