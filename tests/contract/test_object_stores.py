"""One contract for the object store: in memory, in a directory behind the real receiver, and S3 (moto's server)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import boto3
import httpx
import pytest
from botocore.config import Config

from tests.contract.aws_server import running_moto
from tests.contract.store_rows import ManualClock, a_host
from tests.fakes.objects import MemoryObjects
from tests.fakes.trouble import Trouble
from tests.integration.control_plane import free_port
from tests.integration.listeners import Connection, HeardHints
from webhook.app import create_host_app
from webhook.words import Words
from workers.domain.errors import BadInput, Refused, Unreachable
from workers.domain.names import HostId
from workers.domain.park import SEALED_LIMIT_BYTES, ObjectMethod
from workers.identity import Authority
from workers.objects import DirectoryObjects, S3Objects
from workers.store.repository import open_store

PUT, GET = ObjectMethod.PUT, ObjectMethod.GET
MINUTE = timedelta(minutes=1)
NAME = "parks/spot-move-7/memory-000000"
OTHER = "parks/spot-move-8/memory-000000"
HOST = HostId("spot-host-a")
CONTENT = bytes(range(256)) * 64


@dataclass(frozen=True)
class Place:
    """A store, and how a host reaches what its URLs name: the answer's status and content."""

    store: MemoryObjects | DirectoryObjects | S3Objects
    reach: Callable[[ObjectMethod, str, bytes], tuple[int, bytes]]
    checks_urls: bool = True
    """moto takes any signature for a good one."""


def in_memory(clock: ManualClock) -> Place:
    store = MemoryObjects(Trouble(clock))

    def reach(method: ObjectMethod, url: str, content: bytes) -> tuple[int, bytes]:
        try:
            if method is PUT:
                store.put(url, content)
                return 204, b""
            return 200, store.get(url)
        except (Refused, KeyError):
            return 403, b""

    return Place(store, reach)


def in_a_directory(clock: ManualClock, home: Path) -> Iterator[Place]:
    store = DirectoryObjects.open(home / "objects", home / "objects.key", clock)
    rows = open_store(f"sqlite:///{home / 'store.sqlite'}", clock)
    rows.hosts.add(a_host(HOST))
    authority = Authority.open(home / "ca", clock)
    client = create_host_app(Words(rows, authority, HeardHints(), clock, (), store), store).test_client()

    def reach(method: ObjectMethod, url: str, content: bytes) -> tuple[int, bytes]:
        shown = {"gunicorn.socket": Connection(HOST)}
        answer = client.open(url, method=method.value, data=content or None, environ_overrides=shown)
        return answer.status_code, answer.data

    yield Place(store, reach)
    rows.close()


def in_a_bucket(endpoint: str) -> Iterator[Place]:
    keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b", "region_name": "us-east-1"}
    client = boto3.client("s3", endpoint_url=endpoint, config=Config(signature_version="s3v4"), **keys)
    client.create_bucket(Bucket="parked-guests")
    with httpx.Client(trust_env=False) as caller:

        def reach(method: ObjectMethod, url: str, content: bytes) -> tuple[int, bytes]:
            answer = caller.request(method.value, url, content=content or None)
            return answer.status_code, answer.content

        yield Place(S3Objects(client, "parked-guests"), reach, checks_urls=False)
    client.close()


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    yield from running_moto()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["memory", "directory", "s3"])
def place(request: pytest.FixtureRequest, clock: ManualClock, tmp_path: Path) -> Iterator[Place]:
    match request.param:
        case "memory":
            yield in_memory(clock)
        case "directory":
            yield from in_a_directory(clock, tmp_path)
        case _:
            yield from in_a_bucket(request.getfixturevalue("s3_endpoint"))


def put(place: Place, name: str, content: bytes = CONTENT) -> None:
    status, _ = place.reach(PUT, place.store.url(PUT, name, MINUTE), content)
    assert status in {200, 204}


def test_what_is_put_through_a_url_is_read_listed_and_got(place: Place) -> None:
    put(place, NAME)
    assert place.store.read(NAME) == CONTENT
    assert place.store.listed("parks/spot-move-7/") == {NAME: len(CONTENT)}
    assert place.reach(GET, place.store.url(GET, NAME, MINUTE), b"") == (200, CONTENT)


def test_what_is_put_again_takes_the_place_of_what_was_there(place: Place) -> None:
    put(place, NAME)
    put(place, NAME, b"shorter")
    assert place.store.read(NAME) == b"shorter"


def test_what_the_control_plane_writes_is_read_by_whoever_has_a_url(place: Place) -> None:
    name = f"packages/{'ab' * 32}/index"
    place.store.write(name, b"first")
    place.store.write(name, CONTENT)
    assert place.store.listed("packages/") == {name: len(CONTENT)}
    assert place.reach(GET, place.store.url(GET, name, MINUTE), b"") == (200, CONTENT)


def test_what_is_not_there_is_none_and_deleted_without_a_word(place: Place) -> None:
    assert place.store.read(OTHER) is None
    assert OTHER not in place.store.listed("parks/")
    place.store.delete([OTHER])
    status, _ = place.reach(GET, place.store.url(GET, OTHER, MINUTE), b"")
    assert status in {403, 404}


def test_a_listing_is_of_one_prefix_and_a_delete_of_what_it_names(place: Place) -> None:
    put(place, NAME)
    put(place, OTHER)
    assert set(place.store.listed("parks/spot-move-7/")) == {NAME}
    place.store.delete([NAME])
    assert place.store.read(NAME) is None
    assert OTHER in place.store.listed("parks/")
    place.store.delete([OTHER])


def test_more_objects_than_one_call_deletes_are_deleted(place: Place) -> None:
    names = [f"parks/spot-move-9/memory-{number:06d}" for number in range(1003)]
    for name in names[:3]:
        put(place, name)
    place.store.delete(names)
    assert not place.store.listed("parks/spot-move-9/")


def test_a_url_is_good_for_one_method(place: Place) -> None:
    if not place.checks_urls:
        pytest.skip("moto does not look at signatures")
    put(place, NAME)
    assert place.reach(GET, place.store.url(PUT, NAME, MINUTE), b"")[0] >= 400
    assert place.reach(PUT, place.store.url(GET, NAME, MINUTE), b"x")[0] >= 400
    assert place.store.read(NAME) == CONTENT


def test_a_url_is_good_for_its_time(place: Place, clock: ManualClock) -> None:
    if not place.checks_urls:
        pytest.skip("moto does not look at signatures")
    put(place, NAME)
    url = place.store.url(GET, NAME, MINUTE)
    clock.move(MINUTE * 2)
    assert place.reach(GET, url, b"")[0] == 403


class TestDirectory:
    @pytest.fixture
    def place(self, clock: ManualClock, tmp_path: Path) -> Iterator[Place]:
        yield from in_a_directory(clock, tmp_path)

    def test_a_url_is_good_for_one_object(self, place: Place) -> None:
        put(place, NAME)
        put(place, OTHER)
        theirs = place.store.url(GET, NAME, MINUTE).replace("spot-move-7", "spot-move-8")
        status, sentence = place.reach(GET, theirs, b"")
        assert status == 403
        assert b"signature" in sentence

    def test_a_later_end_is_another_signature(self, place: Place) -> None:
        url = place.store.url(GET, NAME, MINUTE)
        expires = parse_qs(urlsplit(url).query)["expires"][0]
        assert place.reach(GET, url.replace(expires, str(int(expires) + 600)), b"")[0] == 403

    def test_whoever_is_no_host_of_ours_gets_nothing_even_with_a_good_url(self, place: Place, tmp_path: Path) -> None:
        put(place, NAME)
        rows = open_store(f"sqlite:///{tmp_path / 'store.sqlite'}", ManualClock())
        store = place.store
        assert isinstance(store, DirectoryObjects)
        authority = Authority.open(tmp_path / "ca", ManualClock())
        client = create_host_app(Words(rows, authority, HeardHints(), ManualClock(), (), store), store).test_client()
        for name in (None, "spot-host-unknown"):
            shown = {"gunicorn.socket": Connection(name)}
            assert client.get(store.url(GET, NAME, MINUTE), environ_overrides=shown).status_code == 403
        rows.close()

    def test_an_object_has_its_limit(self, place: Place) -> None:
        url = place.store.url(PUT, NAME, MINUTE)
        assert place.reach(PUT, url, bytes(SEALED_LIMIT_BYTES + 1))[0] == 413
        assert place.store.read(NAME) is None
        assert place.reach(PUT, url, bytes(SEALED_LIMIT_BYTES))[0] == 204

    def test_a_name_leads_nowhere_else(self, place: Place) -> None:
        for name in ("parks/../../etc/passwd", "/etc/passwd", "parks//x", "Parks/x", "x", "parks/.x"):
            with pytest.raises(BadInput, match="name"):
                place.store.read(name)

    def test_no_object_is_the_folder_of_another(self, place: Place) -> None:
        """The names are ours, so this is a fault of ours: said as one, and nothing of either is lost."""
        store = place.store
        store.write("parks/a/b", b"one")
        for name in ("parks/a", "parks/a/b/c"):
            assert store.read(name) is None
            with pytest.raises(BadInput, match="above or below"):
                store.write(name, b"two")
        assert store.listed("parks/") == {"parks/a/b": 3}

    def test_processes_share_one_secret(self, tmp_path: Path, clock: ManualClock) -> None:
        one, two = (DirectoryObjects.open(tmp_path / "o", tmp_path / "key", clock) for _ in range(2))
        assert one.url(GET, NAME, MINUTE) == two.url(GET, NAME, MINUTE)
        assert (tmp_path / "key").stat().st_mode & 0o077 == 0


class TestS3:
    def test_a_url_says_its_object_its_end_and_no_secret(self, s3_endpoint: str) -> None:
        (place,) = in_a_bucket(s3_endpoint)
        url = urlsplit(place.store.url(PUT, NAME, MINUTE))
        asked = parse_qs(url.query)
        assert url.path == f"/parked-guests/{NAME}"
        assert asked["X-Amz-Expires"] == ["60"]
        assert asked["X-Amz-Signature"]
        assert "b" not in asked.get("X-Amz-Credential", [""])[0].split("/")

    def test_a_bucket_that_is_not_there_is_one_sentence(self, s3_endpoint: str) -> None:
        client = boto3.client(
            "s3", endpoint_url=s3_endpoint, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b"
        )
        with pytest.raises(Refused, match="bucket nobodys answered to list_objects_v2"):
            S3Objects(client, "nobodys").listed("parks/")
        client.close()

    def test_a_store_that_does_not_answer_is_tried_again_later(self) -> None:
        limits = Config(connect_timeout=1, read_timeout=1, retries={"total_max_attempts": 1})
        keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b", "region_name": "us-east-1"}
        client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{free_port()}", config=limits, **keys)
        with pytest.raises(Unreachable, match="parked-guests"):
            S3Objects(client, "parked-guests").read(NAME)
        client.close()
