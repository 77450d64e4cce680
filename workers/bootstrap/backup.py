"""`spot-runner backup` and `spot-runner restore`: the store, the authority, and what is sealed, in one file.

    backup   store ─▶ copy ─┐
             ca/, vault.key, *.sealed, objects.key ─┴─▶ FILE (0600)
    restore  FILE ─▶ checked ─▶ home/ca/.restoring ─▶ store, all or nothing ─▶ keys ─▶ authority last

Parked guests are not in it: GitHub gives their jobs up within ten minutes. Leaves, the beat's schedule and the last
good pools file are made anew.
"""

from __future__ import annotations

import os
import pwd
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from workers.archive import Contents, pack, sync, unpack
from workers.bootstrap.clouds import mark
from workers.clock import SystemClock
from workers.domain.errors import BadInput, Unfit
from workers.identity import RESTORING
from workers.settings import ControlSettings
from workers.store.copying import bring_in, copy_out, is_in_use
from workers.vault import KEY_NAME, SUFFIX

AUTHORITY: Final = "ca"
STORE: Final = "store.sqlite"
OBJECTS_KEY: Final = "objects.key"
_IN_THE_CLEAR: Final = (
    "It holds the authority's keys, and what opens the App's: whoever reads it is this deployment. Only you may read "
    "it now; keep it so, and encrypt it before it leaves this machine.\n"
)


def run_backup(settings: ControlSettings, file: Path) -> int:
    """Write everything that a deployment cannot make anew to this file, while it goes on.

    Raises `Unfit` or `BadInput`; then there is no such file.
    """
    home = settings.home
    _require_own(home)
    if not (home / AUTHORITY).is_dir():
        raise Unfit(f"{home} is no home of a deployment; set SPOT_RUNNER_HOME to the one that is served")
    with _scratch(file.parent) as scratch:
        revision = copy_out(settings.database, scratch / STORE)
        parts = {STORE: scratch / STORE, **_kept(home)}
        pack(file, parts, SystemClock().now().isoformat(), mark(settings), revision)
    sys.stdout.write(f"{file}: the store at revision {revision}, and {', '.join(sorted(set(parts) - {STORE}))}.\n")
    sys.stdout.write(_IN_THE_CLEAR)
    for sentence in _elsewhere(settings):
        sys.stdout.write(f"- {sentence}\n")
    return 0


def run_restore(settings: ControlSettings, file: Path) -> int:
    """Make the home and the store of this deployment out of a backup; both must be empty.

    Raises `Unfit` or `BadInput`; then both are as empty as before.
    """
    home = settings.home
    _require_own(home)
    _refuse_live(settings)
    try:
        staging = _staging(home)
        contents = unpack(file, staging)
        bring_in(staging / STORE, settings.database)
    except BaseException:
        _forget(home)
        raise
    _place(staging, home)
    sys.stdout.write(_said(contents, file, home))
    return 0


def _kept(home: Path) -> dict[str, Path]:
    """Return what is in a home and can be made by nobody."""
    sealed = sorted(home.glob(f"*{SUFFIX}"))
    single = [one for one in (home / KEY_NAME, home / OBJECTS_KEY, *sealed) if one.is_file()]
    issuers = sorted(one for one in (home / AUTHORITY).glob("*.pem") if one.is_file())
    return {str(one.relative_to(home)): one for one in (*single, *issuers)}


def _elsewhere(settings: ControlSettings) -> Iterator[str]:
    """Yield a sentence for each file that the settings name, which is not ours to take along."""
    named = {
        "SPOT_RUNNER_VAULT_KEY_FILE": settings.vault_key_file,
        "SPOT_RUNNER_GITHUB_KEY_FILE": settings.github_key_file,
        "SPOT_RUNNER_WEBHOOK_SECRET_FILE": settings.webhook_secret_file,
        "SPOT_RUNNER_POOLS_FILE": settings.pools_file,
        "SPOT_RUNNER_OFFERS_FILE": settings.offers_file,
        **{f"SPOT_RUNNER_GITHUB_MORE_APPS {number}": key for number, key in settings.github_more_apps.items()},
    }
    yield from (f"{name}: {file} is not in it; keep it by yourself" for name, file in named.items() if file)


def _refuse_live(settings: ControlSettings) -> None:
    home = settings.home
    if (home / AUTHORITY / RESTORING).exists():
        raise Unfit(f"a restore into {home} has not ended; empty {home}, and the database, and restore again")
    if home.is_dir() and (found := sorted(_kept(home))):
        raise Unfit(f"{home} is in use: {found[0]} is there; stop the deployment, move it away, and restore then")
    if is_in_use(settings.database):
        raise Unfit("the store is in use; stop the deployment, and set SPOT_RUNNER_DATABASE_URL to an empty one")


def _require_own(home: Path) -> None:
    """Files that root makes here would be closed to the service."""
    if home.is_dir() and (owner := home.stat().st_uid) != os.geteuid():
        with suppress(KeyError):
            raise BadInput(f"{home} belongs to {pwd.getpwuid(owner).pw_name}; run this as that user")
        raise BadInput(f"{home} belongs to the user {owner}; run this as that user")


def _staging(home: Path) -> Path:
    place = home / AUTHORITY / RESTORING
    try:
        for one in (home, home / AUTHORITY, place):
            one.mkdir(mode=0o700, parents=True, exist_ok=one is not place)
    except OSError as error:
        raise Unfit(f"{home} cannot be written ({error.strerror}); let it belong to whoever runs this") from error
    return place


def _place(staging: Path, home: Path) -> None:
    """Move what was checked to where it belongs; while the staging is there, nobody makes another authority."""
    (staging / STORE).unlink()
    for part in sorted(one for one in staging.iterdir() if one.is_file()):
        part.rename(home / part.name)
    sync(home)
    for part in sorted((staging / AUTHORITY).iterdir()):
        part.rename(home / AUTHORITY / part.name)
    sync(home / AUTHORITY)
    shutil.rmtree(staging)
    sync(home / AUTHORITY)


def _forget(home: Path) -> None:
    shutil.rmtree(home / AUTHORITY / RESTORING, ignore_errors=True)
    for one in (home / AUTHORITY, home):
        with suppress(OSError):
            one.rmdir()  # only if we have made it: what holds anything stays


@contextmanager
def _scratch(directory: Path) -> Iterator[Path]:
    """Keep the copy where the backup will be: there is to be room for both, and it is on no other disk."""
    try:
        place = tempfile.mkdtemp(prefix=".spot-runner-", dir=directory)
    except OSError as error:
        raise BadInput(f"{directory} cannot be written ({error.strerror}); name a file in another directory") from error
    try:
        yield Path(place)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _said(contents: Contents, file: Path, home: Path) -> str:
    return (
        f"{home} is deployment {contents.mark} as of {contents.made_at}, from {file}. Start serve and worker: what has "
        "happened since is asked of GitHub, the cloud and the hosts within ten minutes.\n"
    )
