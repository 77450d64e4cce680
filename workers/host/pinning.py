"""Writes into a recipe which archive it means: the one place where a hash comes from, because it has read the file."""

from __future__ import annotations

import os
import re
import tempfile
import tomllib
from datetime import date
from pathlib import Path
from typing import Final

from workers.domain.errors import BadInput
from workers.host.archive import address, fetch, hashed, named_version
from workers.host.recipe import Pin, Recipe

# GitHub made its first release of actions/runner in 2019.
OLDEST: Final = date(2019, 1, 1)
_TABLE: Final = re.compile(r"^\[runner\.pinned\][^\n]*\n(?:(?!\s*(?:\[|#|\n))[^\n]*\n)*", re.MULTILINE)


def read_pin(recipe: Recipe, given: Path | None, version: str | None, released: date, today: date) -> Pin:
    """Read an archive, `given` or fetched from the recipe's address, and say which it is.

    Raises `BadInput` if it is no archive of actions/runner, or what is said of it cannot be, and `TryLater`.
    """
    if not OLDEST <= released <= today:
        raise BadInput(f"--released {released}: no release of {recipe.runner.name} is of that day; write YYYY-MM-DD")
    told = named_version(given.name) if given is not None else None
    known = version or told
    if known is None:
        raise BadInput("which version is it? Write --version, as on the page of its release, for example 2.336.0")
    if told is not None and told != known:
        raise BadInput(f"--version {version}: {given} is of version {told} by its name")
    where = address(recipe, known)
    if given is not None:
        return Pin(known, released, hashed(given))
    named_version(where)
    with tempfile.TemporaryDirectory(prefix="spot-pin.") as folder:
        fetched = Path(folder) / "archive.tar.gz"
        fetch(where, fetched)
        return Pin(known, released, hashed(fetched))


def write_pin(path: Path, pin: Pin) -> None:
    """Let the recipe in this file mean this archive from now on; everything else in it stays as it is."""
    text = path.read_text()
    table = f'[runner.pinned]\nversion = "{pin.version}"\nreleased = {pin.released}\nsha256 = "{pin.sha256}"\n'
    written, found = _TABLE.subn(table, text, count=1)
    if not found:
        written = f"{text.rstrip()}\n\n{table}"
    try:
        tomllib.loads(written)
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"{path}: [runner.pinned] must be a table of its own ({error}); remove what is there") from error
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(written)
    partial.chmod(path.stat().st_mode)
    partial.rename(path)
