"""`spot-runner package fetch`: as an image's builder runs it, a process of its own before a bucket in trouble."""

from __future__ import annotations

import hashlib
import os
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import boto3
import httpx
import pytest
from werkzeug import Request, Response

from tests.contract.aws_cloud import KEYS
from tests.contract.aws_server import running_moto
from tests.contract.bucket import BUCKET, ELSEWHERE, Door, bucket, environment, refused
from tests.contract.played_builder import LIMIT_S, command, ended, make_package, until
from workers.bootstrap.vouching import MARGIN, Vouching
from workers.domain.names import PackageDigest
from workers.domain.published import INDEX, object_name, read_index
from workers.domain.voucher import read_voucher, voucher_name
from workers.host.packages import verify
from workers.host.publishing import publish
from workers.objects import S3Objects

UNFIT = 2
HOUR = timedelta(hours=1)
NOBODYS = PackageDigest("sha256:" + "0" * 64)


@dataclass(frozen=True)
class Shop:
    """A bucket with a package in it, and a machine that is to have it."""

    door: Door
    store: S3Objects
    digest: PackageDigest
    home: Path

    @property
    def place(self) -> Path:
        return self.home / f"{self.digest.replace(':', '-')}.package"

    @property
    def parts(self) -> list[str]:
        content = self.store.read(object_name(self.digest, INDEX)) or b""
        return [f"/{BUCKET}/{object_name(self.digest, part.sha256)}" for part in read_index(content, self.digest).parts]

    def vouching(self, digest: PackageDigest | None = None) -> Vouching:
        wanted = digest or self.digest
        return Vouching(self.store, (read_index(self.store.read(object_name(wanted, INDEX)) or b"", wanted),))

    def begin(self, url: str, *digests: str) -> subprocess.Popen[str]:
        (voucher := self.home / "voucher").write_text(f"{url}\n")
        words = ["package", "fetch", *(digests or (self.digest,)), "--voucher", str(voucher)]
        return command([*words, "--into", str(self.home)], {})

    def fetched(self, url: str, *digests: str) -> tuple[int, str]:
        """Return the status, and what is said if it is none of success."""
        code, _, complained = ended(self.begin(url, *digests))
        return code, complained


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    yield from running_moto()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[PackageDigest, Path]:
    return make_package(tmp_path_factory.mktemp("packages"))


@pytest.fixture
def shop(
    moto: str, made: tuple[PackageDigest, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Shop]:
    boto3.setup_default_session()  # the former keeps the first credentials that any test had
    for name, value in KEYS.items():
        monkeypatch.setenv(name.upper(), value)
    digest, path = made
    with bucket(moto) as (door, url):
        store = S3Objects.open(BUCKET, ELSEWHERE, environment(url)["SPOT_RUNNER_OBJECTS_ENDPOINT"])
        publish(path, digest, store)
        door.asked.clear()
        yield Shop(door, store, digest, tmp_path)


def digest_of(content: bytes) -> PackageDigest:
    return PackageDigest(f"sha256:{hashlib.sha256(content).hexdigest()}")


def test_what_a_voucher_is_for_is_fetched_and_verified(shop: Shop) -> None:
    with shop.vouching().vouched("x", HOUR) as url:
        assert shop.fetched(url or "") == (0, "")
    verify(shop.place, shop.digest)
    assert len(shop.parts) == 3
    assert all(shop.door.asked.count(("GET", part)) == 1 for part in shop.parts)


def test_one_that_was_killed_goes_on_where_it_was(shop: Shop) -> None:
    passed: list[str] = []
    over = threading.Event()

    def one_alone(request: Request) -> Response | None:
        if request.path in shop_parts and passed != [request.path]:
            passed.append(request.path)
            if len(passed) > 1:
                over.wait(LIMIT_S)
        return None

    shop_parts = shop.parts
    arrived = shop.home / f".{shop.place.name}.arrived"
    with shop.vouching().vouched("x", HOUR) as url:
        shop.door.before = one_alone
        with shop.begin(url or "") as running:
            until(lambda: arrived.exists() and arrived.read_text().count("\n") == 2)
            running.kill()
        over.set()
        assert not shop.place.exists()
        shop.door.before = lambda _: None
        shop.door.asked.clear()
        assert shop.fetched(url or "") == (0, "")
    verify(shop.place, shop.digest)
    assert passed[0] not in [path for _, path in shop.door.asked]
    assert {part for part in shop_parts if ("GET", part) in shop.door.asked} == set(shop_parts) - {passed[0]}


@pytest.mark.parametrize("times", [1, 100])
def test_a_part_that_is_damaged_is_fetched_again_and_refused_if_it_stays_so(shop: Shop, times: int) -> None:
    left, damaged = list(range(times)), shop.parts[1]

    def damage(request: Request) -> Response | None:
        if request.path == damaged and left:
            left.pop()
            return Response(os.urandom(8 << 20))
        return None

    with shop.vouching().vouched("x", HOUR) as url:
        shop.door.before = damage
        code, complained = shop.fetched(url or "")
    assert shop.place.exists() is (times == 1)
    if times == 1:
        assert (code, complained) == (0, "")
        return
    assert (code, complained.count("\n")) == (UNFIT, 1)
    assert "a part in the store has sha256" in complained
    assert "publish it again" in complained


def test_a_voucher_that_has_expired_is_one_sentence(shop: Shop) -> None:
    with shop.vouching().vouched("x", timedelta(seconds=1) - MARGIN) as url:
        until(lambda: httpx.get(url or "", trust_env=False).status_code == 403)
        code, complained = shop.fetched(url or "")
    assert (code, complained.count("\n")) == (UNFIT, 1)
    assert "voucher: it has expired, or the build is over" in complained
    assert "403" in complained
    assert "Request has expired" in complained
    assert "Signature" not in complained


@pytest.mark.parametrize("which", ["index", "part"])
def test_what_the_store_refuses_is_one_sentence_and_nothing_has_the_package_s_name(shop: Shop, which: str) -> None:
    barred = f"/{BUCKET}/{object_name(shop.digest, INDEX)}" if which == "index" else shop.parts[2]
    with shop.vouching().vouched("x", HOUR) as url:
        shop.door.before = lambda asked: refused("AccessDenied", "Access Denied") if asked.path == barred else None
        code, complained = shop.fetched(url or "")
    assert (code, complained.count("\n"), shop.place.exists()) == (UNFIT, 1, False)
    assert "object store answered 403 to GET http" in complained
    assert "AccessDenied: Access Denied" in complained
    assert "Signature" not in complained


def test_a_store_that_fails_for_a_moment_is_asked_again(shop: Shop) -> None:
    seen: set[str] = set()

    def fails_once(request: Request) -> Response | None:
        if request.method == "GET" and request.path not in seen:
            seen.add(request.path)
            return Response("slow down", 503)
        return None

    with shop.vouching().vouched("x", HOUR) as url:
        shop.door.before = fails_once
        assert shop.fetched(url or "") == (0, "")
    assert any("vouchers/" in path for path in seen)
    verify(shop.place, shop.digest)


def test_a_url_is_good_for_one_object_and_for_reading(shop: Shop) -> None:
    """The door computes signatures as S3 does, so what it lets in is signed well."""
    with shop.vouching().vouched("x", HOUR) as url, httpx.Client(trust_env=False) as caller:
        assert url is not None
        assert caller.get(url).status_code == 200
        assert caller.get(url.replace("vouchers/x", object_name(shop.digest, INDEX))).status_code == 403
        assert caller.put(url, content=b"another").status_code == 403
        assert caller.delete(url).status_code == 403
        assert caller.get(url).status_code == 200


def test_urls_outlive_the_builder_and_not_for_long(shop: Shop) -> None:
    with shop.vouching().vouched("x", HOUR) as url:
        urls = read_voucher(shop.store.read(voucher_name("x")) or b"")[shop.digest]
    assert len(urls) == 1 + len(shop.parts)
    lives = {parse_qs(urlsplit(one).query)["X-Amz-Expires"][0] for one in (url or "", *urls.values())}
    assert lives == {str(75 * 60)}


def test_a_voucher_that_cannot_be_deleted_is_no_reason_to_fail(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    with shop.vouching().vouched("x", HOUR):
        shop.door.before = lambda asked: refused("AccessDenied", "no") if asked.method == "POST" else None
    complained = capsys.readouterr().err
    assert complained.startswith("vouchers/x is left in the object store (the bucket ")
    assert complained.count("\n") == 1
    shop.door.before = lambda _: None
    with shop.vouching().vouched("x", HOUR):
        assert shop.store.read(voucher_name("x"))
    assert shop.store.read(voucher_name("x")) is None


@pytest.mark.parametrize("wanted", [NOBODYS, "sha256:zero"])
def test_what_the_voucher_is_not_for_is_not_fetched(shop: Shop, wanted: str) -> None:
    with shop.vouching().vouched("x", HOUR) as url:
        code, complained = shop.fetched(url or "", wanted)
    assert (code, complained.count("\n")) == (UNFIT, 1)
    assert "the voucher is not for this package" in complained or "is no digest" in complained


def test_a_file_that_is_no_package_is_refused_though_it_is_whole(shop: Shop) -> None:
    (file := shop.home / "none").write_bytes(content := os.urandom(1000))
    digest = digest_of(content)
    publish(file, digest, shop.store)
    with shop.vouching(digest).vouched("x", HOUR) as url:
        code, complained = shop.fetched(url or "", digest)
    assert (code, complained.count("\n")) == (UNFIT, 1)
    assert "spot-runner: " in complained


@pytest.mark.parametrize("content", [None, b"", b"\xff", b"a secret that is no address", b"https://a b"])
def test_a_file_without_a_url_is_refused_and_not_shown(tmp_path: Path, content: bytes | None) -> None:
    voucher = tmp_path / "voucher"
    if content is not None:
        voucher.write_bytes(content)
    code, said, complained = ended(command(["package", "fetch", NOBODYS, "--voucher", str(voucher)], {}))
    assert (code, said, complained.count("\n")) == (UNFIT, "", 1)
    assert f"--voucher {voucher}: " in complained
    assert "secret" not in complained


def test_the_url_may_come_by_standard_input(shop: Shop) -> None:
    words = ["package", "fetch", shop.digest, "--voucher", "-", "--into", str(shop.home)]
    with shop.vouching().vouched("x", HOUR) as url:
        code, _, complained = ended(command(words, {}), url)
    assert (code, complained) == (0, "")
    assert shop.place.exists()
