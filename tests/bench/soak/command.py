"""`./dev bench soak`: thousands of jobs through every real process, with deliveries astray and everything restarted."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.bench.soak.deployment import Deployment, Size, deployed
from tests.bench.soak.play import Wish, play
from tests.contract import postgresql


def main(arguments: list[str]) -> int:
    """Soak, print the report and write it; 1 if a job differs or anything is left."""
    options = read(arguments)
    # Else what was started would stay.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended before it was over"))
    directory = Path(tempfile.mkdtemp(prefix="spot-runner-soak-", dir=options.directory))
    wish = Wish(
        jobs=options.jobs,
        outstanding_max=options.outstanding,
        seed=options.seed,
        restarts=options.restarts,
        settle_s=options.settle,
    )
    try:
        with ExitStack() as stack:
            database = None
            if options.postgresql:
                socket = stack.enter_context(postgresql.running_server())
                database = f"postgresql+psycopg://postgres@/postgres?host={socket}"
            deployment = Deployment(directory / "soak", Size(), database)
            outcome = play(stack.enter_context(deployed(deployment)), wish)
    finally:
        if options.keep:
            sys.stderr.write(f"logs and store are in {directory}\n")
        else:
            shutil.rmtree(directory)
    report = outcome.report()
    sys.stdout.write(json.dumps(report, indent=1) + "\n")
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=1))
    return 0 if outcome.is_right else 1


def read(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    wanted = argparse.ArgumentParser(prog="./dev bench soak", description=__doc__)
    wanted.add_argument("--jobs", type=int, default=1000, metavar="N", help="20,000 take most of an hour on two cores")
    wanted.add_argument("--json", type=Path, metavar="FILE", help="where to write the report")
    wanted.add_argument("--outstanding", type=int, default=300, metavar="N", help="no more jobs than so many at once")
    wanted.add_argument("--seed", type=int, default=1)
    wanted.add_argument(
        "--restarts", type=int, default=2, metavar="N", help="how often everything of ours is restarted"
    )
    wanted.add_argument("--postgresql", action="store_true", help="keep the store in a PostgreSQL of our own")
    wanted.add_argument(
        "--settle", type=float, default=600, metavar="SECONDS", help="how long both sides may need to agree"
    )
    wanted.add_argument(
        "--directory", type=Path, default=Path(tempfile.gettempdir()), help="where store and logs lie meanwhile"
    )
    wanted.add_argument("--keep", action="store_true", help="leave logs and store where they are and say where")
    return wanted.parse_args(arguments)
