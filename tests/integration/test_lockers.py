"""A host's side of the object store: parts through real URLs of an S3 server, with a line that fails now and then."""

from __future__ import annotations

import asyncio
import gc
import secrets
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import boto3
import pytest
from botocore.config import Config

from tests.contract.aws_server import running_moto
from workers.domain.errors import BadInput, Refused, SpotError, Unreachable
from workers.domain.messages import ParkOrder, RegistrationAnswer, RenewalRequest, RowView, Word
from workers.domain.migration import Said
from workers.domain.names import MigrationId
from workers.domain.park import Manifest, ObjectMethod, Part, Stream, object_name
from workers.host.locker import TRIES_MAX, Locker, Shipment
from workers.host.transfers import Transfers
from workers.objects import S3Objects

T = TypeVar("T")
PARK = MigrationId("spot-move-1")
RESUME = MigrationId("spot-move-2")
KEY = secrets.token_hex(32)


@dataclass
class Control:
    """Signs as the control plane does: PUT for the park, GET for the resume."""

    store: S3Objects
    asked: list[tuple[str, ...]] = field(default_factory=list)

    async def object_urls(self, migration_id: MigrationId, names: tuple[str, ...]) -> Mapping[str, str]:
        self.asked.append(names)
        method = ObjectMethod.PUT if migration_id == PARK else ObjectMethod.GET
        return {name: self.store.url(method, object_name(PARK, name), timedelta(minutes=1)) for name in names}

    async def row(self, migration_id: MigrationId) -> RowView:
        raise Unreachable(f"nothing asks for {migration_id} here")

    async def say(self, migration_id: MigrationId, said: Said, word: Word) -> RowView:
        raise Unreachable(f"nothing says {said} of {migration_id} here")

    async def move_certificate(self, migration_id: MigrationId, request: RenewalRequest) -> RegistrationAnswer:
        raise Unreachable(f"{migration_id} has no peer")


@dataclass
class Shaky:
    """A line to the store on which these calls fail before the others go through."""

    transfers: Transfers
    failures: list[SpotError] = field(default_factory=list)

    def put(self, url: str, content: bytes) -> None:
        self._fail()
        self.transfers.put(url, content)

    def get(self, url: str, limit_bytes: int) -> bytes:
        self._fail()
        return self.transfers.get(url, limit_bytes)

    def _fail(self) -> None:
        if self.failures:
            raise self.failures.pop()


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    yield from running_moto()


@pytest.fixture
def control(endpoint: str) -> Iterator[Control]:
    keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b", "region_name": "us-east-1"}
    client = boto3.client("s3", endpoint_url=endpoint, config=Config(signature_version="s3v4"), **keys)
    client.create_bucket(Bucket="parked-guests")
    yield Control(S3Objects(client, "parked-guests"))
    client.close()


@pytest.fixture
def shaky(tmp_path: Path) -> Iterator[Shaky]:
    transfers = Transfers("https://nobody.invalid", tmp_path)
    yield Shaky(transfers)
    transfers.close()


def using(
    control: Control,
    shaky: Shaky,
    migration_id: MigrationId,
    order: ParkOrder,
    work: Callable[[Locker], Coroutine[Any, Any, T]],
) -> T:
    async def run() -> T:
        locker = Locker(migration_id, order, control, shaky)
        try:
            return await work(locker)
        finally:
            locker.close()

    return asyncio.run(run())


def parked(control: Control, shaky: Shaky, pieces: list[bytes]) -> ParkOrder:
    """Store these as memory; return what a target is told."""

    async def store(locker: Locker) -> str:
        shipment = Shipment(locker, Stream.MEMORY, asyncio.Semaphore(4))
        for piece in pieces:
            await shipment.add(piece)
        return await locker.put_manifest(Manifest(PARK, await shipment.all(), (), 0))

    return ParkOrder(PARK, KEY, using(control, shaky, PARK, ParkOrder(PARK, KEY), store))


def fetched(control: Control, shaky: Shaky, order: ParkOrder) -> list[bytes]:
    async def fetch(locker: Locker) -> list[bytes]:
        manifest = await locker.manifest()
        return [piece async for piece in locker.contents(Stream.MEMORY, manifest.memory)]

    return using(control, shaky, RESUME, order, fetch)


PIECES = [secrets.token_bytes(number * 1000 + 1) for number in range(40)]


def test_what_was_stored_is_fetched_in_its_order(control: Control, shaky: Shaky) -> None:
    order = parked(control, shaky, PIECES)  # which of the parts at once is sealed first, nobody knows
    assert fetched(control, shaky, order) == PIECES
    assert len(control.asked) == 6, "two times two for 40 parts, and one each for the list of them"


@pytest.mark.parametrize("error", [Unreachable("gone for a moment"), Refused("the URL has expired")])
def test_a_store_that_fails_for_a_moment_is_asked_again_with_a_fresh_url(
    control: Control, shaky: Shaky, error: SpotError
) -> None:
    shaky.failures = [error] * (TRIES_MAX - 1)
    order = parked(control, shaky, PIECES[:1])
    shaky.failures = [error]
    assert fetched(control, shaky, order) == PIECES[:1]


def test_a_store_that_goes_on_failing_is_given_up_with_its_own_words(control: Control, shaky: Shaky) -> None:
    shaky.failures = [Refused("no permission")] * TRIES_MAX
    with pytest.raises(Refused, match="no permission"):
        parked(control, shaky, PIECES[:1])


def test_a_park_waits_for_a_silent_store_and_a_resume_does_not(control: Control, shaky: Shaky) -> None:
    shaky.failures = [Unreachable("gone") for _ in range(TRIES_MAX + 2)]
    order = parked(control, shaky, PIECES[:1])
    assert not shaky.failures
    shaky.failures = [Unreachable("gone") for _ in range(TRIES_MAX)]
    with pytest.raises(Unreachable, match="gone"):
        fetched(control, shaky, order)


def test_whoever_writes_hears_what_befell_an_earlier_part(
    control: Control, shaky: Shaky, caplog: pytest.LogCaptureFixture
) -> None:
    shaky.failures = [*([Refused("no more")] * TRIES_MAX * 8)]
    with pytest.raises(Refused, match="no more"):
        parked(control, shaky, PIECES[:12])
    shaky.failures.clear()  # or their tracebacks would keep all that is looked for
    gc.collect()
    assert "never retrieved" not in caplog.text, "what befell the others needs no other word"


@pytest.mark.parametrize("wrong", ["key", "manifest", "order of parts", "one part less"])
def test_anything_else_than_this_very_park_is_refused(control: Control, shaky: Shaky, wrong: str) -> None:
    order = parked(control, shaky, PIECES[:4])
    names = [object_name(PARK, f"memory-{number:06d}") for number in range(4)]
    match wrong:
        case "key":
            order = replace(order, key=secrets.token_hex(32))
        case "manifest":
            order = replace(order, manifest="0" * 64)
        case "order of parts":
            first, second = control.store.read(names[0]), control.store.read(names[1])
            assert first is not None
            assert second is not None
            for name, content in ((names[0], second), (names[1], first)):
                shaky.put(control.store.url(ObjectMethod.PUT, name, timedelta(minutes=1)), content)
        case _:
            control.store.delete(names[2:3])
    with pytest.raises((BadInput, Refused), match=r"spot-move-1|memory-000002"):
        fetched(control, shaky, order)


def test_a_part_knows_its_size_before_it_is_sealed_again(control: Control, shaky: Shaky) -> None:
    order = parked(control, shaky, [b"x" * 100_000])
    content = control.store.read(object_name(PARK, "memory-000000"))
    assert content is not None
    assert len(content) < 1000, "it was made smaller before it was sealed"
    assert Part(len(content), "").sealed_bytes == len(content)
    assert fetched(control, shaky, order) == [b"x" * 100_000]
