"""What stands in the place of actions/runner's listener: it takes its configuration as that does, and then one job.

It is put into an archive beside `rehearsal_runner`, and runs in the guest with whatever Python is there.
"""

from __future__ import annotations

import base64
import json
import os
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
VARIABLE = "ACTIONS_RUNNER_INPUT_JITCONFIG"


def main() -> int:
    """Warm up, or write what the configuration holds beside `run.sh`, as actions/runner does, and run the one job."""
    if sys.argv[1:] == ["warmup"]:
        (ROOT / "warmed-up").write_text(str(os.getuid()))
        return 0
    for name, content in json.loads(base64.b64decode(os.environ[VARIABLE])).items():
        (ROOT / name).write_bytes(base64.b64decode(content))
    sys.path.insert(0, str(HERE))
    from rehearsal_runner.__main__ import main as run_job  # noqa: PLC0415 - it is found only now

    return run_job()


if __name__ == "__main__":
    sys.exit(main())
