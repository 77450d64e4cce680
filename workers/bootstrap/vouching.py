"""Packages for a builder at a cloud: found in the object store, and vouched for as long as it works.

index, parts there? ─▶ voucher written ─▶ its URL ─▶ [builder works] ─▶ voucher deleted, however it ended
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from workers.bootstrap.stores import open_bucket_at_home
from workers.domain.errors import BadInput, SpotError
from workers.domain.names import PackageDigest
from workers.domain.park import ObjectMethod
from workers.domain.published import INDEX, Index, folder, missing, object_name, read_index
from workers.domain.voucher import Urls, voucher_bytes, voucher_name
from workers.host.manifest import MIB
from workers.objects import S3Objects
from workers.settings import ControlSettings

# Between signing and the builder's first minute older builders are ended; clocks differ, too.
MARGIN: Final = timedelta(minutes=15)


@dataclass(frozen=True)
class Vouching:
    """Packages that are whole in this store; without any there is nothing to vouch for."""

    store: S3Objects | None = None
    indexes: tuple[Index, ...] = ()

    @property
    def size_mib(self) -> int:
        """How much room they take."""
        return -(-sum(index.size for index in self.indexes) // MIB)

    @contextmanager
    def vouched(self, image: str, install_limit: timedelta) -> Iterator[str | None]:
        """Give the URL of a voucher that is there as long as this block runs; it is one for each image.

        A voucher that a killed command has left is replaced, and then deleted, by the next one for the same image.
        """
        if self.store is None:
            yield None
            return
        name, limit = voucher_name(image), install_limit + MARGIN
        try:
            self.store.write(name, voucher_bytes(self._urls(self.store, limit)))
            yield self.store.url(ObjectMethod.GET, name, limit)
        finally:
            _forget(self.store, name)

    def _urls(self, store: S3Objects, limit: timedelta) -> Urls:
        return {
            index.digest: {
                name: store.url(ObjectMethod.GET, object_name(index.digest, name), limit)
                for name in (INDEX, *dict.fromkeys(part.sha256 for part in index.parts))
            }
            for index in self.indexes
        }


def find_published(settings: ControlSettings, digests: Sequence[PackageDigest]) -> Vouching:
    """Find these packages in the deployment's bucket. Raises `BadInput` for one that is not there, or not whole."""
    if not digests:
        return Vouching()
    if settings.objects_bucket is None:
        raise BadInput(
            "--package: a builder at a cloud fetches packages from a bucket; set SPOT_RUNNER_OBJECTS_BUCKET, and "
            "publish them there"
        )
    store = open_bucket_at_home(settings, settings.objects_bucket)
    return Vouching(store, tuple(_index(store, digest) for digest in digests))


def _index(store: S3Objects, digest: PackageDigest) -> Index:
    remedy = f"run `spot-runner package publish {digest}`, and build again"
    content = store.read(object_name(digest, INDEX))
    if content is None:
        raise BadInput(f"--package {digest}: it is not in the object store; {remedy}")
    index = read_index(content, digest)
    lacking = missing(index, store.listed(folder(digest)))
    if lacking is not None:
        raise BadInput(f"--package {digest}: it is not whole in the object store ({lacking}); {remedy}")
    return index


def _forget(store: S3Objects, name: str) -> None:
    """Delete a voucher; one that stays is no reason to lose an image over, or to hide why there is none."""
    try:
        store.delete([name])
    except SpotError as error:
        sys.stderr.write(f"{name} is left in the object store ({error}); its URLs expire within the hour; delete it\n")
