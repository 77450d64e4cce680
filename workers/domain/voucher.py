"""A voucher: where packages are read, for a machine that may ask nobody. It is one object of the store, for an hour.

    vouchers/<image>   {"version": 1, "packages": {"sha256:…": {"index": URL, "<sha256 of a part>": URL, …}, …}}

A machine that makes itself an image has no certificate by which the control plane would know it, and its user data has
no room for a URL of each part. So it is told the URL of this object alone, which is deleted when the image is made.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from workers.domain.errors import BadInput, Refused
from workers.domain.names import PackageDigest

VERSION: Final = 1
PREFIX: Final = "vouchers/"
# A URL has less than 2 KiB, even with the token of a role in it; the largest package has 16,384 parts.
VOUCHER_LIMIT_BYTES: Final = 64 << 20

Urls = Mapping[PackageDigest, Mapping[str, str]]
"""Where the objects of each package are read, by their names as in `domain.published`."""


def voucher_name(image: str) -> str:
    """Name the object in the store."""
    return f"{PREFIX}{image}"


def voucher_bytes(urls: Urls) -> bytes:
    """Return a voucher as it lies in the store."""
    told = {"version": VERSION, "packages": {digest: dict(named) for digest, named in urls.items()}}
    return json.dumps(told, separators=(",", ":")).encode()


def read_voucher(content: bytes) -> Urls:
    """Read a voucher. Raises `BadInput`, which shows nothing of it."""
    try:
        return _understood(json.loads(content))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BadInput("voucher: what the object store has is none; build the image again") from error


def urls_of(urls: Urls, digest: PackageDigest, names: Iterable[str]) -> Mapping[str, str]:
    """Return where these objects of a package are read. Raises `Refused` for what the voucher is not for."""
    if digest not in urls:
        raise Refused(f"{digest}: the voucher is not for this package; build the image again")
    named = urls[digest]
    if lacking := [name for name in names if name not in named]:
        raise Refused(f"{digest}: published anew since the voucher was made, which lacks {lacking[0]}; build it again")
    return {name: named[name] for name in names}


def _understood(read: Any) -> Urls:  # noqa: ANN401 any JSON
    if read["version"] != VERSION:
        raise ValueError(f"version {read['version']} instead of {VERSION}")
    found = {PackageDigest(digest): dict(named) for digest, named in read["packages"].items()}
    if not all(isinstance(url, str) for named in found.values() for url in named.values()):
        raise ValueError("a URL is no text")
    return found
