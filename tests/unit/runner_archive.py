"""An archive that is laid out as those of actions/runner are, with a program of ours in the listener's place."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

NAME = "actions-runner-linux-x64-2.999.1.tar.gz"
# As actions/runner's own: its helper is written anew beside it at each start, and what the listener is told is `run`.
RUN = """#!/bin/bash
DIR="$( cd -P "$( dirname "${BASH_SOURCE[0]}" )" && pwd )"
cp -f "$DIR"/run-helper.sh.template "$DIR"/run-helper.sh
"$DIR"/run-helper.sh $*
exit 0
"""
HELPER = """#!/bin/bash
"$( cd -P "$( dirname "${BASH_SOURCE[0]}" )" && pwd )"/bin/Runner.Listener run $*
"""
# As actions/runner: the files of its configuration go beside `run.sh`, hidden.
LISTENER = """#!/usr/bin/env python3
import base64, json, os, pathlib, sys
root = pathlib.Path(__file__).resolve().parents[1]
if sys.argv[1:] == ["warmup"]:
    (root / "warmed-up").write_text(str(os.getuid()))
    sys.exit(0)
told = os.environ.pop("ACTIONS_RUNNER_INPUT_JITCONFIG")
for name, content in json.loads(base64.b64decode(told)).items():
    (root / name).write_bytes(base64.b64decode(content))
print("Listening for Jobs", sys.argv[1:], flush=True)
"""
FILES = {
    "run.sh": (RUN, 0o755),
    "config.sh": ("#!/bin/bash\n", 0o755),
    "env.sh": ("#!/bin/bash\n", 0o755),
    "run-helper.sh.template": (HELPER, 0o755),
    "safe_sleep.sh": ("#!/bin/bash\n", 0o755),
    "bin/Runner.Listener": (LISTENER, 0o755),
    "bin/installdependencies.sh": ("#!/bin/bash\n", 0o755),
    "externals/node20/bin/node": ("#!/bin/sh\n", 0o755),
}


def write_archive(
    path: Path,
    without: str = "",
    more: tarfile.TarInfo | None = None,
    files: Mapping[str, tuple[str, int]] = FILES,
) -> Path:
    """Write the archive of these files (text and mode), perhaps without what begins so, or with one entry more."""
    with tarfile.open(path, "w:gz") as tar:
        for folder in _folders(files):
            if not without or not folder.startswith(f"./{without}"):
                tar.addfile(_entry(folder, tarfile.DIRTYPE, 0o755))
        for name, (text, mode) in files.items():
            if without and name.startswith(without):
                continue
            entry = _entry(f"./{name}", tarfile.REGTYPE, mode)
            entry.size = len(text.encode())
            tar.addfile(entry, io.BytesIO(text.encode()))
        if more is not None:
            tar.addfile(more)
    return path


def _folders(files: Mapping[str, tuple[str, int]]) -> list[str]:
    """Return the folders of these files, each after the one that it is in."""
    return ["./", *sorted({f"./{one}" for name in files for one in PurePosixPath(name).parents if one.name})]


def _entry(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.uid, entry.gid = kind, mode, 1001, 127
    return entry
