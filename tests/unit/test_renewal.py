"""`spot-runner package renew`: the former package stays in use until the new one has been proved."""

from __future__ import annotations

import json
import shutil
import threading
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.unit.runner_archive import NAME, write_archive
from tests.unit.small_package import small_manifest, write_devices
from workers.bootstrap.renewal import Renewal, Wanted, replace_package
from workers.domain.errors import BadInput, Refused, TryLater, Unreachable
from workers.domain.names import PackageDigest
from workers.domain.release import Release
from workers.host.packages import PackageShelf
from workers.host.pinning import write_pin
from workers.host.recipe import Pin, read_recipe
from workers.host.releases import newest_release
from workers.host.rootfs import Given

PACKAGES = Path(__file__).parents[2] / "runner-vm/packages"
NEWEST = Release("2.999.1", date(2026, 11, 20))
FORMER = Pin("2.900.0", date(2026, 10, 20), "a" * 64)


class Bench:
    """A recipe in use with its package and a policy file that names it; building makes another small package."""

    def __init__(self, home: Path) -> None:
        (home / "vm/packages").mkdir(parents=True)
        for name in ("debian-12-base.toml", "github-runner.toml"):
            shutil.copy(PACKAGES / name, home / "vm/packages")
        self.home, self.recipe = home, home / "vm/packages/github-runner.toml"
        write_pin(self.recipe, FORMER)
        self.shelf = PackageShelf(home / "store", home / "cache")
        (home / "devices").mkdir()
        self.former = self._added("former")
        self.shelf.name("github-runner", self.former)
        self.pools = home / "pools.toml"
        self.pools.write_text(
            f'[[packages]]\nimage = "github-runner"\ndigest = "{self.former}"\nvcpus = 2\nmemory_mib = 4096\n'
            f"disk_mib = 14336\nrunner_released = 2026-10-20\n\n"
            f'[[packages]]\nimage = "other"\ndigest = "sha256:{"1" * 64}"\nvcpus = 1\nmemory_mib = 1024\n'
            f'disk_mib = 4096\nrunner_released = 2026-10-01\n\n[[pools]]\nname = "ci"\npackage = "{self.former}"\n'
        )
        self.wanted = Wanted(self.recipe, write_archive(home / NAME), NEWEST.released, self.pools)
        self.said: list[str] = []

    def _added(self, name: str) -> PackageDigest:
        devices = write_devices(self.home / "devices")
        return self.shelf.add(devices, lambda entries: replace(small_manifest(entries), name=name))

    def renew(
        self, prove: Callable[[PackageDigest], float] = lambda _: 0.3, newest: Release = NEWEST
    ) -> PackageDigest | None:
        def build(recipe: Path, given: Given) -> PackageDigest:
            assert given.archive is not None
            return self._added(read_recipe(recipe).pin.version)

        return Renewal(self.wanted, newest, self.shelf, build, prove, self.said.append).carry_out()

    @property
    def in_use(self) -> tuple[str, str, PackageDigest, list[str]]:
        """The recipe, the policy file, what the name means, and which files lie beside the recipe."""
        beside = sorted(path.name for path in self.recipe.parent.iterdir())
        return self.recipe.read_text(), self.pools.read_text(), self.shelf.named("github-runner"), beside


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_newer_release_is_built_proved_and_put_in_use(bench: Bench) -> None:
    beside = bench.in_use[3]

    fresh = bench.renew()

    assert fresh not in {None, bench.former}
    assert bench.shelf.named("github-runner") == fresh
    assert bench.shelf.path(bench.former).exists()
    assert read_recipe(bench.recipe).release == NEWEST
    told = tomllib.loads(bench.pools.read_text())
    assert told["packages"][0]["digest"] == told["pools"][0]["package"] == fresh
    assert [one["runner_released"] for one in told["packages"]] == [NEWEST.released, date(2026, 10, 1)]
    assert bench.in_use[3] == beside
    assert any(line.startswith("proved: a guest of sha256:") for line in bench.said)


def test_a_package_that_is_not_proved_changes_nothing(bench: Bench) -> None:
    before = bench.in_use

    def prove(_: PackageDigest) -> float:
        assert bench.in_use[:3] == before[:3], "nothing may be in use before it is proved"
        raise Unreachable("the agent did not answer")

    with pytest.raises(Unreachable):
        bench.renew(prove)
    assert bench.in_use == before
    assert bench.renew() is not None, "and the next time goes on"


def test_a_policy_file_that_would_not_be_right_stays_and_the_recipe_with_it(bench: Bench) -> None:
    bench.pools.write_text(bench.pools.read_text() + "nonsense = 1\n")
    before = bench.in_use

    with pytest.raises(BadInput, match="nonsense"):
        bench.renew()
    assert bench.in_use == before


def test_nothing_newer_is_nothing_to_do(bench: Bench) -> None:
    before = bench.in_use

    assert bench.renew(newest=Release(FORMER.version, FORMER.released)) is None
    assert bench.in_use == before


def test_without_a_policy_file_the_settings_are_told(bench: Bench) -> None:
    bench.wanted = replace(bench.wanted, pools=None)

    fresh = bench.renew()

    assert f"set SPOT_RUNNER_PACKAGE={fresh} and SPOT_RUNNER_PACKAGE_RUNNER_RELEASED=2026-11-20" in bench.said


def test_a_policy_file_that_does_not_name_the_former_one_is_left_alone(bench: Bench) -> None:
    before = bench.pools.read_text()

    assert not replace_package(bench.pools, PackageDigest("sha256:22"), bench.former, NEWEST.released)
    assert bench.pools.read_text() == before


@contextmanager
def _releases(status: int, body: str) -> Iterator[str]:
    class Latest(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body.encode())))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Latest) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/latest"
        server.shutdown()


def test_the_newest_release_is_what_github_says() -> None:
    told = {"tag_name": "v2.336.0", "published_at": "2026-11-20T13:14:15Z", "draft": False}
    with _releases(200, json.dumps(told)) as url:
        assert newest_release(url) == Release("2.336.0", date(2026, 11, 20))


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (404, "{}", "answered 404"),
        (403, "rate limit", "answered 403"),
        (200, "<html>", "names no release"),
        (200, "[]", "names no release"),
        (200, '{"tag_name": "nightly", "published_at": "2026-11-20T13:14:15Z"}', "names no release"),
        (200, '{"tag_name": "v2.1.0", "published_at": null}', "names no release"),
    ],
)
def test_an_answer_that_is_no_release_is_refused(status: int, body: str, says: str) -> None:
    with _releases(status, body) as url, pytest.raises(Refused, match=says):
        newest_release(url)


def test_no_answer_is_asked_again_later() -> None:
    with pytest.raises(TryLater, match="--runner-archive"):
        newest_release("http://127.0.0.1:1/latest")
