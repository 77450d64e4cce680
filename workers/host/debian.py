"""Debian's root file system as a tar: what mmdebstrap makes of a list of packages and two scripts."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from workers.host.programs import run
from workers.host.settling import ENVIRONMENT

MMDEBSTRAP_LIMIT_S: Final = 1800
KEYS: Final = "/usr/share/keyrings/debian-archive-keyring.gpg"


def make_tar(tar: Path, suite: str, packages: Sequence[str], hooks: Path, more: Sequence[str] = ()) -> None:
    """Make the root of a suite with these packages; it has its name only when it is whole.

    `hooks` holds prepare.sh and customize.sh, `more` are lines of further package sources. Needs root; raises `Unfit`.
    """
    partial = tar.with_suffix(".partial")
    with tempfile.TemporaryDirectory(prefix=".mmdebstrap.", dir=tar.parent) as work:
        Path(work).chmod(0o755)
        options = [
            *("--mode=root", "--variant=minbase", "--quiet", "--format=tar", "--skip=output/dev"),
            f"--include={','.join(packages)}",
            f"--setup-hook={hooks / 'prepare.sh'}",
            f"--customize-hook={hooks / 'customize.sh'}",
        ]
        command = ["mmdebstrap", *options, suite, str(partial), *sources_lists(suite), *more]
        run(command, MMDEBSTRAP_LIMIT_S, {**ENVIRONMENT, "TMPDIR": work})
    partial.rename(tar)


def sources_lists(suite: str, apt: Path = Path("/etc/apt")) -> list[str]:
    """Return this machine's own package sources if it runs the same suite; else mmdebstrap knows the usual ones."""
    lists = [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*.list"))]
    sources = sorted((apt / "sources.list.d").glob("*.sources"))
    return [str(path) for path in lists + sources if path.exists() and serves(path, suite)]


def serves(path: Path, suite: str) -> bool:
    """Say whether a list of package sources is for this suite and its updates and for nothing else."""
    suites = {name for line in path.read_text(errors="replace").splitlines() for name in _suites(line)}
    return bool(suites) and all(name == suite or name.startswith(f"{suite}-") for name in suites)


def _suites(line: str) -> list[str]:
    """`Suites: bookworm bookworm-updates`, or `deb [options] uri bookworm main`."""
    match re.sub(r"\[.*?\]", "", line).split():
        case ["Suites:", *names]:
            return names
        case ["deb", _, name, *_]:
            return [name]
        case _:
            return []


def backports(suite: str) -> str | None:
    """Return the line of a suite's backports, next to where this machine fetches it from; None if it runs another."""
    wanted = ["apt-get", "indextargets", "--format", "$(CODENAME) $(COMPONENT) $(REPO_URI)", "Created-By: Packages"]
    for line in run(wanted).splitlines():
        codename, component, place = line.split()
        if (codename, component) == (suite, "main"):
            return f"deb [signed-by={KEYS}] {place} {suite}-backports main"
    return None
