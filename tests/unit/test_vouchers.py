"""Packages for a builder at a cloud: what it is told, what it runs, and what its voucher says."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import boto3
import pytest

from images.builder import FAILED, SCRIPT, VOUCHER, builder_user_data, script_of, with_voucher
from images.order import Order, check_room, checked_order, read_digests
from images.root import PROGRAM, SHELF, description
from images.versions import load
from tests.unit.test_image_builder import PROGRAM as OURS
from tests.unit.test_image_builder import asked
from workers.bootstrap.image_aws import order_of
from workers.domain.errors import BadInput, Refused
from workers.domain.names import PackageDigest
from workers.domain.park import ObjectMethod
from workers.domain.published import INDEX, PARTS_MAX
from workers.domain.user_data import USER_DATA_MAX
from workers.domain.voucher import VOUCHER_LIMIT_BYTES, read_voucher, urls_of, voucher_bytes, voucher_name
from workers.objects import S3Objects
from workers.providers.aws.requests import Rental

ONE, TWO, THREE = (f"sha256:{digit * 64}" for digit in "abc")
# As long as one that a role has signed: its token has more than a thousand characters.
URL = (
    f"https://bucket.s3.eu-west-3.amazonaws.com/vouchers/x?X-Amz-Security-Token={'t' * 1600}&X-Amz-Signature={'0' * 64}"
)


def ordered(*packages: str) -> Order:
    order = checked_order(load(), "aws", "kvm", "debian-12-kvm")
    return replace(order, fetched=read_digests("aws", packages))


def files_of(user_data: str) -> dict[str, dict[str, str]]:
    return {one["path"]: one for one in json.loads(user_data.partition("\n")[2])["write_files"]}


def test_what_it_is_told_has_room_for_packages_and_a_long_url() -> None:
    told = with_voucher(builder_user_data(ordered(ONE, TWO, THREE), OURS), URL)
    assert len(told.encode()) <= USER_DATA_MAX
    files = files_of(told)
    assert files[VOUCHER] == {"path": VOUCHER, "permissions": "0600", "content": f"{URL}\n"}
    assert json.loads(files["/etc/spot-runner/image.json"]["content"])["packages"] == [ONE, TWO, THREE]
    assert told.count(URL) == 1, "it is in the file that is removed, and nowhere else"


def test_more_than_a_cloud_takes_is_refused() -> None:
    many = [f"sha256:{number:064x}" for number in range(120)]
    with pytest.raises(BadInput, match=rf"the builder would be told \d+ bytes, and clouds take {USER_DATA_MAX}"):
        builder_user_data(ordered(*many), OURS)
    with pytest.raises(BadInput, match="name fewer"):
        with_voucher(builder_user_data(ordered(ONE), OURS), URL * 10)


def test_an_image_is_named_after_its_packages_whatever_their_order() -> None:
    def name(*packages: str) -> str:
        rental = Rental("eu-central-1", "images", ("subnet-1",), ("m8i.large",))
        return order_of(replace(asked(), packages=packages), rental, is_public=lambda: False).name

    assert len({name(), name(ONE), name(TWO), name(ONE, TWO)}) == 4
    assert name(ONE, TWO) == name(TWO, ONE, TWO)


def test_without_packages_a_builder_is_told_what_it_always_was() -> None:
    assert "package fetch" not in script_of(ordered(), OURS)
    assert VOUCHER not in builder_user_data(ordered(), OURS)
    assert json.loads(description(ordered(), {}))["packages"] == []


@pytest.mark.parametrize("is_there", [True, False])
def test_the_script_fetches_by_the_voucher_and_removes_it_or_says_why_not(tmp_path: Path, *, is_there: bool) -> None:
    """Its lines run here, with a program that says what it got."""
    script = script_of(ordered(TWO, ONE), OURS)
    assert script.index("host --help") < script.index("package fetch") < script.index("update-grub")
    lines = script[script.index("exec 3>&1") : script.index('step="what a host is"')]
    program, voucher, console = tmp_path / "spot-runner", tmp_path / "voucher", tmp_path / "console"
    voucher.write_text(URL)
    program.write_text(
        f'#!/bin/sh\necho "$@" > {tmp_path}/asked\necho "half is here"\n'
        + ("" if is_there else 'echo "spot-runner: the package is damaged; publish it again" >&2\nexit 2\n')
    )
    program.chmod(0o755)
    head = script[: script.index("export DEBIAN_FRONTEND")].replace("/dev/console", str(console))
    for place, here in ((f"/{PROGRAM}/bin/spot-runner", program), (VOUCHER, voucher)):
        lines = lines.replace(place, str(here))
    text = f'{head}step="the runners\' packages"\n{lines}'
    done = subprocess.run(
        ["sh", "-c", text], env={"PATH": os.environ["PATH"]}, capture_output=True, timeout=60, check=False
    )
    assert (tmp_path / "asked").read_text() == f"package fetch --voucher {voucher} --into /{SHELF} {ONE} {TWO}\n"
    assert b"half is here" in done.stdout, "how far it is goes to the console as it comes"
    assert (done.returncode == 0) is is_there
    assert voucher.exists() is not is_there
    if not is_there:
        told = "the runners' packages: spot-runner: the package is damaged; publish it again"
        assert console.read_text() == f"{FAILED} at: {told}\n"


def test_the_script_with_packages_is_one_of_sh(tmp_path: Path) -> None:
    script = files_of(builder_user_data(ordered(ONE), OURS))[SCRIPT]["content"]
    (tmp_path / "script").write_text(script)
    subprocess.run(["sh", "-n", tmp_path / "script"], check=True, timeout=30)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("/var/cache/a.package", "run `spot-runner package publish /var/cache/a.package`, and name the digest"),
        ("sha256:ab", "'sha256:ab' is no digest"),
        (f"sha256:{'A' * 64}", "is no digest"),
    ],
)
def test_what_is_no_digest_is_refused_with_the_remedy(text: str, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        read_digests("hetzner", [ONE, text])


def test_packages_need_room_beside_the_system() -> None:
    check_room(0, 100, "--disk-mib", "write more")
    check_room(2048, 4096, "--disk-mib", "write more")
    with pytest.raises(
        BadInput, match="--disk-mib: 4096 MiB are too few, since the system needs 2048 and the packages 2049"
    ):
        check_room(2049, 4096, "--disk-mib", "write more")


def test_a_voucher_says_where_each_object_of_its_packages_is() -> None:
    digest = PackageDigest(ONE)
    urls = {digest: {INDEX: "https://x/index?s=1", "b" * 64: "https://x/b?s=2"}}
    read = read_voucher(voucher_bytes(urls))
    assert read == urls
    assert urls_of(read, digest, (INDEX,)) == {INDEX: "https://x/index?s=1"}
    with pytest.raises(Refused, match="the voucher is not for this package"):
        urls_of(read, PackageDigest(TWO), (INDEX,))
    with pytest.raises(Refused, match=f"lacks {'c' * 64}"):
        urls_of(read, digest, (INDEX, "c" * 64))
    assert voucher_name("spot-runner-debian-12-kvm-0") == "vouchers/spot-runner-debian-12-kvm-0"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"version":2,"packages":{}}',
        b'{"version":1,"packages":[]}',
        b'{"version":1,"packages":{"sha256:a":7}}',
        b'{"version":1,"packages":{"sha256:a":{"index":7}}}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_voucher_is_refused_and_not_shown(content: bytes) -> None:
    with pytest.raises(BadInput, match=r"^voucher: what the object store has is none; build the image again$"):
        read_voucher(content)


def test_the_largest_package_s_voucher_is_one() -> None:
    """A URL of the longest kind for each of as many parts as there may be."""
    urls = {PackageDigest(ONE): {f"{number:064x}": URL for number in range(PARTS_MAX)}}
    assert len(voucher_bytes(urls)) < VOUCHER_LIMIT_BYTES


@pytest.mark.parametrize("region", ["us-east-1", "eu-west-3"])
def test_a_bucket_at_aws_is_named_where_it_lies(monkeypatch: pytest.MonkeyPatch, region: str) -> None:
    """S3's global name leads callers of a young bucket elsewhere, for which no signature is good."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    url = S3Objects.open("a-bucket", region).url(ObjectMethod.GET, "vouchers/x", timedelta(hours=1))
    assert url.startswith(f"https://a-bucket.s3.{region}.amazonaws.com/vouchers/x?X-Amz-Algorithm=AWS4-HMAC-SHA256&")
    assert f"%2F{region}%2Fs3%2Faws4_request" in url
    dotted = S3Objects.open("a.bucket", region).url(ObjectMethod.GET, "vouchers/x", timedelta(hours=1))
    assert dotted.startswith(f"https://s3.{region}.amazonaws.com/a.bucket/vouchers/x?")
    boto3.setup_default_session()  # or these would be the credentials of later tests, too
