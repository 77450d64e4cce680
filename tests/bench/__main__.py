"""`python -m tests.bench`: what restoring and moving a guest costs, measured on this machine.

Without options: ours beside the same QEMU driven by hand. `webhook`: the receiver beside a bare Flask view.
`register`: a just-in-time registration beside the same request made by hand.
`package`: a package from the object store beside zstd -d of the same file.
`plan`: what a plan costs with a long queue and many offers. `kills`: the control plane killed at random moments.
`soak`: thousands of jobs through every real process of the control plane.
`burst`: hundreds of jobs at once, with GitHub's real limits enforced.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path

from tests.bench import beside, moves, package, plan, register, versus, webhook
from tests.bench.kills import command as kills
from tests.bench.soak import burst
from tests.bench.soak import command as soak

# What is measured beside guests has options of its own.
OTHERS = {
    "webhook": webhook.main,
    "register": register.main,
    "package": package.main,
    "soak": soak.main,
    "burst": burst.main,
    "plan": plan.main,
    "kills": kills.main,
}


def main() -> int:
    """Measure what was asked for: guests, unless the first word says something else."""
    # Else what was started would stay: guests, namespaces, libvirtd, listeners and their stores.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended before it was over"))
    first = sys.argv[1] if len(sys.argv) > 1 else ""
    return OTHERS[first](sys.argv[2:]) if first in OTHERS else guests()


def guests() -> int:
    """Run what was asked for, print it, and write the report; 1 if something is wrong whatever the machine."""
    wanted = argparse.ArgumentParser(
        prog="./dev bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    wanted.add_argument("--json", type=Path, metavar="FILE", help="where to write the report")
    wanted.add_argument("--rounds", type=int, default=5, help="how often everything is measured side by side")
    wanted.add_argument("--cold-rounds", type=int, default=1, help="cold boots take half a minute each")
    wanted.add_argument(
        "--moves", type=int, metavar="N", help="move one busy guest there and back, N moves in all; 200 take 20 minutes"
    )
    wanted.add_argument("--virsh", action="store_true", help="move one guest by Debian's libvirt and by ours, in turn")
    options = wanted.parse_args()
    if options.moves is not None and (options.moves < 1 or options.moves % 2):
        wanted.error(f"argument --moves: {options.moves} does not bring the guest back; give an even number above 0")
    if options.moves is not None:
        report, is_right = moves.run(options.moves)
    elif options.virsh:
        report, is_right = versus.run(options.rounds), True
    else:
        report, is_right = beside.run(options.rounds, options.cold_rounds), True
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=1))
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main())
