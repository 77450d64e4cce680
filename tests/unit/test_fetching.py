"""Fetching a package while URLs expire, and while another daemon of the same machine fetches it, too."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.unit.test_publishing import LIMIT_S, SIZE, Shelf, digest_of
from workers.domain.errors import Refused
from workers.domain.names import PackageDigest
from workers.domain.published import INDEX
from workers.host.fetching import TRIES_MAX, Fetcher
from workers.host.publishing import publish


class SignedShelf(Shelf):
    """Its URLs say how often it was asked before; of some answers every URL is too old by the time it is used."""

    def __init__(self, *too_old: int) -> None:
        super().__init__()
        self.answers, self.too_old = 0, set(too_old)

    async def package_urls(self, digest: PackageDigest, names: tuple[str, ...]) -> Mapping[str, str]:
        self.answers += 1
        return {name: f"{url}?{self.answers}" for name, url in (await super().package_urls(digest, names)).items()}

    def get(self, url: str, limit_bytes: int) -> bytes:
        name, _, answer = url.partition("?")
        if int(answer) in self.too_old:
            raise Refused("expires: this URL is too old; ask for a fresh one")
        return super().get(name, limit_bytes)


@pytest.fixture(scope="module")
def content() -> bytes:
    return os.urandom(SIZE)


def published(shelf: Shelf, content: bytes, tmp_path: Path) -> tuple[PackageDigest, Path]:
    file, digest = tmp_path / "a.package", digest_of(content)
    file.write_bytes(content)
    publish(file, digest, shelf)
    return digest, tmp_path / "store" / "p.package"


def fetch(shelf: Shelf, digest: PackageDigest, place: Path, daemons: int = 1) -> None:
    async def all_of_them() -> None:
        fetchers = [Fetcher(place.parent, shelf, shelf) for _ in range(daemons)]
        await asyncio.wait_for(asyncio.gather(*(one.fetch(digest, place) for one in fetchers)), LIMIT_S)

    asyncio.run(all_of_them())


def test_for_urls_that_have_expired_others_are_asked_for(content: bytes, tmp_path: Path) -> None:
    shelf = SignedShelf(1, 3)  # the index's first one, and the first ones of the parts
    digest, place = published(shelf, content, tmp_path)
    fetch(shelf, digest, place)
    assert place.read_bytes() == content


def test_a_store_that_refuses_every_url_is_not_asked_for_ever(content: bytes, tmp_path: Path) -> None:
    shelf = SignedShelf(*range(1000))
    digest, place = published(shelf, content, tmp_path)
    with pytest.raises(Refused, match="the object store does not give it"):
        fetch(shelf, digest, place)
    assert shelf.answers == TRIES_MAX


def test_two_daemons_of_one_machine_fetch_a_package_once(content: bytes, tmp_path: Path) -> None:
    shelf = Shelf()
    digest, place = published(shelf, content, tmp_path)
    fetch(shelf, digest, place, daemons=2)
    assert place.read_bytes() == content
    assert len([name for name in shelf.given if not name.endswith(INDEX)]) == 4
