"""`spot-runner package fetch`: packages out of the object store, for a machine that has a voucher and nothing else."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from workers.domain.errors import BadInput, Refused, TryLater
from workers.domain.names import PackageDigest
from workers.domain.published import hex_of
from workers.domain.voucher import VOUCHER_LIMIT_BYTES, Urls, read_voucher, urls_of
from workers.host.fetching import AGAIN_INTERVAL_S, TRIES_MAX, Fetcher
from workers.host.manifest import MIB
from workers.host.packages import PackageShelf, verify
from workers.host.transfers import SignedObjects

STANDARD_INPUT: Final = Path("-")
_URL: Final = re.compile(r"https?://[\x21-\x7e]{1,8000}")


@dataclass(frozen=True)
class Vouched:
    """`fetching.ControlPlane` that answers out of a voucher."""

    urls: Urls

    async def package_urls(self, digest: PackageDigest, names: tuple[str, ...]) -> Mapping[str, str]:
        """Return where these objects of a package are read."""
        return urls_of(self.urls, digest, names)


def run_fetch(voucher: Path, into: Path, digests: Sequence[PackageDigest]) -> None:
    """Let these packages lie in the folder, each verified. Raises `BadInput`, `Refused`, `Unfit` or `TryLater`."""
    for digest in digests:
        hex_of(digest)
    url = _read(voucher)
    with closing(SignedObjects()) as objects:
        asyncio.run(_fetch(objects, url, into, digests))


async def _fetch(objects: SignedObjects, url: str, into: Path, digests: Sequence[PackageDigest]) -> None:
    fetcher = Fetcher(into, Vouched(read_voucher(await _voucher(objects, url))), objects)
    shelf = PackageShelf(into, into)
    for digest in digests:
        place = shelf.path(digest)
        await fetcher.fetch(digest, place)
        # One of another format is whole, too, and no host of this version could use it.
        await asyncio.to_thread(verify, place, digest)
        sys.stdout.write(f"{digest}: {place.stat().st_size / MIB:.1f} MiB in {into}\n")


async def _voucher(objects: SignedObjects, url: str) -> bytes:
    """Read the voucher, again if the store does not answer for a moment. Raises `TryLater`, or `Refused`."""
    for _ in range(TRIES_MAX - 1):
        try:
            return await asyncio.to_thread(objects.get, url, VOUCHER_LIMIT_BYTES)
        except TryLater:
            await asyncio.sleep(AGAIN_INTERVAL_S)
        except Refused as error:
            raise Refused(f"voucher: it has expired, or the build is over ({error}); build the image again") from error
    return await asyncio.to_thread(objects.get, url, VOUCHER_LIMIT_BYTES)


def _read(file: Path) -> str:
    """Read the URL. Raises `BadInput`, which does not show it."""
    try:
        text = sys.stdin.read() if file == STANDARD_INPUT else file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"--voucher {file}: it cannot be read ({type(error).__name__}); name one that can") from error
    if not _URL.fullmatch(text.strip()):
        raise BadInput(f"--voucher {file}: it holds no URL; write the one of a voucher into it, and nothing else")
    return text.strip()
