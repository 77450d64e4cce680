"""The work of a guest that notices if anything of it was lost, as a script for the scripted guest."""

from __future__ import annotations

import json
from pathlib import Path

PROGRAM = Path(__file__).with_name("busy_program.py")


def busy_script(**work: float) -> str:
    """Return what the guest's runner program is to run: `busy_program.py`, and what it takes its orders from."""
    order = json.dumps(work)
    return f"import os\nos.environ['ACTIONS_RUNNER_INPUT_JITCONFIG'] = {order!r}\nexec({PROGRAM.read_text()!r})\n"
