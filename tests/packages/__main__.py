"""Makes a package, runs one job in a guest of it, and says whether all was as it should be.

    ./dev package try [github-runner|oci] [--json FILE]     by default both, one after the other

`github-runner`: the recipe of that name with an archive that is laid out as actions/runner's, the rehearsal's runner in
the listener's place. `oci`: the same on an image that is a small Debian without systemd. What is made goes away again;
only what Debian gave stays, in /var/cache/spot-runner/tried.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from tests.packages.inputs import make_archive, make_layout, make_recipe
from tests.packages.job import Outcome, run_job
from tests.packages.questions import STEPS, Step, facts, wrongs
from workers.bootstrap.package import run_build, run_pin
from workers.host.build import Built
from workers.host.packages import PackageShelf, Unpacked
from workers.host.rootfs import Given
from workers.settings import HostSettings

KEPT: Final = Path("/var/cache/spot-runner/tried")
LINES_SHOWN: Final = 40


@dataclass(frozen=True)
class Verdict:
    """What came of one trial."""

    kind: str
    built: Built
    built_s: float
    """All of it: root file system, disk, boot to a snapshot, packing."""
    packed_mib: float
    outcome: Outcome

    @property
    def steps(self) -> Sequence[Step]:
        return STEPS[self.kind]

    @property
    def wrong(self) -> list[str]:
        """Return a sentence for each thing that is not as it should be."""
        out = self.outcome
        around = {
            f"the job's conclusion is {out.conclusion!r}": out.conclusion == "success",
            f"the runner program ended with {out.exit_code}": out.exit_code == 0,
            "the guest asked for no address of a name": out.names_asked > 0,
            f"the search of the guest's disk found {out.on_disk}": out.on_disk == ("marker",),
        }
        return [*(said for said, is_so in around.items() if not is_so), *wrongs(self.steps, facts(out.log))]

    @property
    def figures(self) -> dict[str, Any]:
        """Return it all for a file."""
        return {
            "package": self.built.digest,
            "acceleration": self.built.choice.acceleration,
            "built_s": round(self.built_s, 1),
            "cold_boot_s": self.built.cold_boot_s,
            "packed_mib": round(self.packed_mib, 1),
            "restored_s": round(self.outcome.restored_s, 1),
            "job_s": round(self.outcome.job_s, 1),
            "conclusion": self.outcome.conclusion,
            "names_asked": self.outcome.names_asked,
            "on_disk": self.outcome.on_disk,
            "facts": facts(self.outcome.log),
            "wrong": self.wrong,
        }


def tried(kind: str, work: Path) -> Verdict:
    """Make the package of this kind, and run one job in a guest of it."""
    settings = HostSettings(build_cache=KEPT / "build", package_store=work / "store", package_cache=work / "unpacked")
    recipe, archive = make_recipe(work, f"{kind}-tried"), make_archive(work)
    run_pin(recipe, archive, None, datetime.now(UTC).date())
    image = make_layout(work, KEPT) if kind == "oci" else None
    began = time.monotonic()
    built = run_build(settings, recipe, Given(archive, None if image is None else str(image)))
    built_s, packed_mib = time.monotonic() - began, built.path.stat().st_size / (1 << 20)
    say(f"{kind}: built in {built_s:.0f} s; one guest is started from it")
    outcome = run_job(unpacked(settings, built), [(step.name, step.script) for step in STEPS[kind]], work)
    return Verdict(kind, built, built_s, packed_mib, outcome)


def unpacked(settings: HostSettings, built: Built) -> Unpacked:
    """Verify and unpack the package."""
    return PackageShelf(settings.package_store, settings.package_cache).unpacked(built.digest)


def show(verdict: Verdict) -> None:
    """Print what was found, and the verdict."""
    out = verdict.outcome
    for name, value in facts(out.log).items():
        say(f"  {name:34} {value}")
    say(f"{verdict.kind}: restored in {out.restored_s:.1f} s, the job took {out.job_s:.0f} s, {out.conclusion}")
    for sentence in verdict.wrong:
        say(f"{verdict.kind}: WRONG: {sentence}")
    if verdict.wrong:
        say("\n".join(out.log[-LINES_SHOWN:]))
    say(f"{verdict.kind}: {'not as it should be' if verdict.wrong else 'all is as it should be'}")


def say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - it speaks to a person


def asked(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="./dev package try", description=__doc__.partition("\n")[0])
    parser.add_argument("kind", nargs="?", choices=sorted(STEPS), help="both, if none is said")
    parser.add_argument("--json", type=Path, help="a file for all that was found")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that nothing is left running
    wish = asked(arguments)
    verdicts = []
    for kind in [wish.kind] if wish.kind else STEPS:
        with tempfile.TemporaryDirectory(prefix="try.") as folder:
            Path(folder).chmod(0o711)  # a monitor opens the package's kernel as a user of its own
            verdicts.append(tried(kind, Path(folder)))
        show(verdicts[-1])
    if wish.json is not None:
        wish.json.write_text(json.dumps({one.kind: one.figures for one in verdicts}, indent=1) + "\n")
    return 1 if any(one.wrong for one in verdicts) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
