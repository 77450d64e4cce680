"""The archive of actions/runner: fetched, held against its pin, and unpacked into a guest's root.

    given or fetched ─▶ archive-<sha256>.tar.gz in the cache ─▶ /home/runner/actions-runner

The program writes what its just-in-time configuration holds into its own folder. The guest's disk is a file of the
host, so links there lead into a file system in memory that the agent makes (`guest_agent.runner.CONFIGURATION`).
"""

from __future__ import annotations

import hashlib
import re
import tarfile
from pathlib import Path
from typing import Final

import httpx

from workers.domain.errors import BadInput, TryLater
from workers.host.recipe import Pin, Recipe

FOLDER: Final = "home/runner/actions-runner"
# Without any of these it is no actions/runner for Linux.
NEEDED: Final = ("run.sh", "config.sh", "bin/Runner.Listener", "externals")
# What actions/runner unpacks from a just-in-time configuration (its src/Runner.Listener/Runner.cs).
CONFIGURED: Final = (".runner", ".credentials", ".credentials_rsaparams")
CONFIGURED_IN: Final = "/run/spot-runner/configuration"
NAME: Final = re.compile(r"actions-runner-(?P<system>[a-z]+)-(?P<machine>[a-z0-9]+)-(?P<version>\d+(\.\d+)+)\.tar\.gz$")
FETCH_LIMIT_S: Final = 60.0
BYTES_MAX: Final = 2 << 30


def named_version(name: str) -> str | None:
    """Return the version that an archive's name tells. Raises `BadInput` if it is for another kind of machine."""
    told = NAME.search(name)
    if told is None:
        return None
    if (told["system"], told["machine"]) != ("linux", "x64"):
        raise BadInput(f"{name}: it is for {told['system']}-{told['machine']}; guests are linux-x64 so far")
    return told["version"]


def hashed(path: Path) -> str:
    """Return the SHA-256 of an archive, in hex, after a look at what it holds. Raises `BadInput`."""
    try:
        with tarfile.open(path, "r:gz") as tar:
            names = {name.removeprefix("./").rstrip("/") for name in tar.getnames()}
    except OSError as error:
        if error.strerror is None:
            raise BadInput(f"{path}: not a whole .tar.gz ({error}); fetch it again") from error
        raise BadInput(f"{path}: {error.strerror}; name the .tar.gz of an actions/runner release") from error
    except (tarfile.TarError, EOFError) as error:
        raise BadInput(f"{path}: not a whole .tar.gz ({error}); fetch it again") from error
    if missing := [name for name in NEEDED if name not in names]:
        raise BadInput(f"{path}: it has no {missing[0]}, so it is no actions/runner for Linux; name its .tar.gz")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(url: str, into: Path) -> None:
    """Fetch an archive to `into`, which is whole afterwards. Raises `BadInput` for a wrong answer, and `TryLater`."""
    try:
        with httpx.stream("GET", url, follow_redirects=True, timeout=FETCH_LIMIT_S) as answer:
            if answer.status_code != httpx.codes.OK:
                raise BadInput(
                    f"{url}: answered {answer.status_code}; is there such a release? Or give --runner-archive FILE"
                )
            _keep(answer, url, into)
    except httpx.HTTPError as error:
        raise TryLater(f"{url}: {error}; --runner-archive FILE needs no network") from error


def _keep(answer: httpx.Response, url: str, into: Path) -> None:
    with into.open("wb") as partial:
        for chunk in answer.iter_bytes():
            partial.write(chunk)
            if partial.tell() > BYTES_MAX:
                raise BadInput(f"{url}: more than {BYTES_MAX >> 30} GiB; no archive of actions/runner is so large")


def obtained(recipe: Recipe, cache: Path, given: Path | None) -> Path:
    """Return the recipe's archive: the one given, or the one in the cache, or fetched.

    Raises `BadInput` if it is not the one that is pinned, or none is.
    """
    pin = recipe.pin
    if given is not None:
        _check(given, pin)
        return given
    kept = cache / f"archive-{pin.sha256}.tar.gz"
    if not kept.exists():
        fetched = cache / f".archive-{pin.sha256}.partial"
        fetch(address(recipe, pin.version), fetched)
        _check(fetched, pin)
        fetched.rename(kept)
    return kept


def address(recipe: Recipe, version: str) -> str:
    """Return where the archive of a version is. Raises `BadInput` if the recipe has none."""
    if recipe.runner.archive is None:
        raise BadInput(f"recipe {recipe.name}: its runner comes from no `archive`, so there is nothing to pin")
    return recipe.runner.archive.replace("{version}", version)


def _check(path: Path, pin: Pin) -> None:
    if (found := hashed(path)) != pin.sha256:
        raise BadInput(
            f"{path}: its SHA-256 is {found}, pinned is {pin.sha256} of version {pin.version}; "
            f"give that one, or pin this one with `spot-runner package pin`"
        )


def unpack(path: Path, root: Path) -> Path:
    """Unpack an archive into a guest's root and return the folder; whose it is, is the caller's to say."""
    folder = root / FOLDER
    folder.mkdir(parents=True)
    try:
        with tarfile.open(path, "r:gz") as tar:
            tar.extractall(folder, filter="data")
    except tarfile.FilterError as error:
        raise BadInput(f"{path}: {error}; no archive of actions/runner does that") from error
    for name in CONFIGURED:
        (folder / name).symlink_to(f"{CONFIGURED_IN}/{name}")
    return folder
