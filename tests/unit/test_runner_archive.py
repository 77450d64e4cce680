"""The archive of actions/runner: what is accepted as one, which is pinned, and where it comes from."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guest_agent.runner import CONFIGURATION, STARTED_FILE
from tests.unit.runner_archive import NAME, write_archive
from workers.domain.errors import BadInput, TryLater
from workers.host.archive import CONFIGURED, CONFIGURED_IN, FOLDER, hashed, named_version, obtained, unpack
from workers.host.pinning import read_pin, write_pin
from workers.host.recipe import Pin, Recipe, read_recipe

PACKAGES = Path(__file__).parents[2] / "runner-vm/packages"
TODAY = date(2026, 11, 29)
RELEASED = date(2026, 11, 20)


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    home = tmp_path / "vm/packages"
    home.mkdir(parents=True)
    for name in ("debian-12-base.toml", "github-runner.toml"):
        shutil.copy(PACKAGES / name, home)
    return home / "github-runner.toml"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return write_archive(tmp_path / NAME)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _pinned(recipe_file: Path, archive: Path) -> Recipe:
    write_pin(recipe_file, read_pin(read_recipe(recipe_file), archive, None, RELEASED, TODAY))
    return read_recipe(recipe_file)


def test_a_pin_is_what_was_read_and_the_rest_of_the_recipe_stays(recipe_file: Path, archive: Path) -> None:
    before = recipe_file.read_text()

    recipe = _pinned(recipe_file, archive)

    assert recipe.pin == Pin("2.999.1", RELEASED, _sha256(archive))
    assert (recipe.release.version, recipe.release.released) == ("2.999.1", RELEASED)
    assert recipe_file.read_text().startswith(before)
    assert recipe_file.stat().st_mode & 0o777 == 0o644


def test_a_second_pin_takes_the_place_of_the_first(recipe_file: Path, archive: Path) -> None:
    _pinned(recipe_file, archive)
    first = recipe_file.read_text()
    write_pin(recipe_file, Pin("3.0.0", TODAY, "a" * 64))

    assert read_recipe(recipe_file).pin == Pin("3.0.0", TODAY, "a" * 64)
    write_pin(recipe_file, Pin("2.999.1", RELEASED, _sha256(archive)))
    assert recipe_file.read_text() == first


def test_an_unpinned_archive_is_not_built(recipe_file: Path, archive: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"is not pinned; let `spot-runner package pin` read it"):
        obtained(read_recipe(recipe_file), tmp_path, archive)


def test_another_archive_than_the_pinned_one_is_refused(recipe_file: Path, archive: Path, tmp_path: Path) -> None:
    recipe = _pinned(recipe_file, archive)
    other = write_archive(tmp_path / "other.tar.gz", without="env.sh")

    with pytest.raises(BadInput, match=f"its SHA-256 is {_sha256(other)}, pinned is {_sha256(archive)}"):
        obtained(recipe, tmp_path, other)
    assert obtained(recipe, tmp_path, archive) == archive


@pytest.mark.parametrize("part", ["run.sh", "config.sh", "bin/Runner.Listener", "externals"])
def test_an_archive_without_a_part_is_none_of_actions_runner(tmp_path: Path, part: str) -> None:
    with pytest.raises(BadInput, match=f"it has no {part}"):
        hashed(write_archive(tmp_path / "a.tar.gz", without=part))


def test_a_file_that_is_cut_off_or_no_archive_is_refused(tmp_path: Path, archive: Path) -> None:
    cut = tmp_path / "cut.tar.gz"
    cut.write_bytes(archive.read_bytes()[:-200])
    text = tmp_path / "page.html"
    text.write_text("<html>Not found</html>")

    for path, says in ((cut, "not a whole"), (text, "not a whole"), (tmp_path / "none", "No such file")):
        with pytest.raises(BadInput, match=says):
            hashed(path)


@pytest.mark.parametrize(
    ("name", "version"), [(NAME, "2.999.1"), ("https://x/v2.336.0/" + NAME, "2.999.1"), ("runner.tar.gz", None)]
)
def test_a_version_is_told_by_a_release_s_name(name: str, version: str | None) -> None:
    assert named_version(name) == version


@pytest.mark.parametrize("kind", ["linux-arm64", "osx-x64", "linux-arm"])
def test_an_archive_for_another_machine_is_refused_by_name(kind: str) -> None:
    with pytest.raises(BadInput, match=f"it is for {kind}; guests are linux-x64"):
        named_version(NAME.replace("linux-x64", kind))


@pytest.mark.parametrize(
    ("version", "released", "says"),
    [
        ("2.1.0", RELEASED, "is of version 2.999.1 by its name"),
        (None, date(2026, 11, 30), "no release of actions/runner is of that day"),
        (None, date(1999, 1, 1), "no release of actions/runner is of that day"),
    ],
)
def test_what_is_said_of_an_archive_must_be_possible(
    recipe_file: Path, archive: Path, version: str | None, released: date, says: str
) -> None:
    with pytest.raises(BadInput, match=says):
        read_pin(read_recipe(recipe_file), archive, version, released, TODAY)


def test_a_recipe_of_a_program_of_ours_has_nothing_to_pin(archive: Path) -> None:
    with pytest.raises(BadInput, match="nothing to pin"):
        read_pin(read_recipe(PACKAGES / "debian-12.toml"), archive, None, RELEASED, TODAY)


TOML_LINES = st.lists(
    st.sampled_from(["# a comment", "", '[other]\nkey = "[runner.pinned]"', "[[list]]\na = 1", "[runner.more]\nb = 2"]),
    unique=True,
    max_size=5,
)


@given(TOML_LINES, TOML_LINES)
def test_whatever_stands_around_a_pin_survives_a_new_one(
    tmp_path_factory: pytest.TempPathFactory, before: list[str], after: list[str]
) -> None:
    path = tmp_path_factory.mktemp("pin") / "recipe.toml"
    after = [part for part in after if part not in before]
    around = "".join(f"{part}\n" for part in before), "".join(f"{part}\n" for part in after)
    path.write_text(f'{around[0]}[runner.pinned]\nversion = "1.0"\nreleased = 2026-01-01\n\n{around[1]}')

    write_pin(path, Pin("2.0.0", RELEASED, "b" * 64))

    text = path.read_text()
    assert text.startswith(around[0])
    assert text.endswith(f'sha256 = "{"b" * 64}"\n\n{around[1]}')


def test_what_is_unpacked_keeps_its_secrets_off_the_disk(tmp_path: Path, archive: Path) -> None:
    """The guest's disk is a file of its host, so what the program writes there of its configuration leads elsewhere."""
    folder = unpack(archive, tmp_path / "root")

    assert folder == tmp_path / "root" / FOLDER
    assert (folder / "run.sh").stat().st_mode & 0o111
    assert {name: str((folder / name).readlink()) for name in CONFIGURED} == {
        name: f"/run/spot-runner/configuration/{name}" for name in (".runner", ".credentials", ".credentials_rsaparams")
    }
    assert str(STARTED_FILE.parent / CONFIGURATION) == CONFIGURED_IN


def test_an_archive_that_leaves_its_folder_is_refused(tmp_path: Path) -> None:
    outside = tarfile.TarInfo("../outside")

    with pytest.raises(BadInput, match="no archive of actions/runner does that"):
        unpack(write_archive(tmp_path / "bad.tar.gz", more=outside), tmp_path / "root")
    assert not (tmp_path / "root/home/runner/outside").exists()


class Releases(BaseHTTPRequestHandler):
    """Answers with the archive below `v2.999.1/`, after a redirect as GitHub makes one, and 404 elsewhere."""

    archive: Path

    def do_GET(self) -> None:
        if self.path == f"/v2.999.1/{NAME}":
            self.send_response(302)
            self.send_header("Location", "/stored")
            self.end_headers()
        elif self.path == "/stored":
            content = self.archive.read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        else:
            self.send_error(404)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served(archive: Path, recipe_file: Path) -> Iterator[ThreadingHTTPServer]:
    served_class = type("Served", (Releases,), {"archive": archive})
    with ThreadingHTTPServer(("127.0.0.1", 0), served_class) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        text = recipe_file.read_text().replace(
            "https://github.com/actions/runner/releases/download", f"http://127.0.0.1:{server.server_port}"
        )
        recipe_file.write_text(text)
        yield server
        server.shutdown()


def test_an_archive_is_fetched_pinned_and_kept(
    served: ThreadingHTTPServer, recipe_file: Path, archive: Path, tmp_path: Path
) -> None:
    write_pin(recipe_file, read_pin(read_recipe(recipe_file), None, "2.999.1", RELEASED, TODAY))
    recipe = read_recipe(recipe_file)
    assert recipe.pin.sha256 == _sha256(archive)

    kept = obtained(recipe, tmp_path, None)
    served.shutdown()

    assert _sha256(obtained(recipe, tmp_path, None)) == _sha256(kept) == recipe.pin.sha256


def test_a_place_that_gives_another_archive_than_the_pinned_one_is_not_believed(
    served: ThreadingHTTPServer, recipe_file: Path, tmp_path: Path
) -> None:
    write_pin(recipe_file, Pin("2.999.1", RELEASED, "c" * 64))
    cache = tmp_path / "cache"
    cache.mkdir()

    for _ in range(2):  # and what came the first time is not taken for it the second time
        with pytest.raises(BadInput, match=f"pinned is {'c' * 64} of version 2.999.1"):
            obtained(read_recipe(recipe_file), cache, None)

    assert not list(cache.glob("archive-*"))


def test_a_version_that_is_not_there_is_said_so(served: ThreadingHTTPServer, recipe_file: Path) -> None:
    with pytest.raises(BadInput, match="answered 404; is there such a release"):
        read_pin(read_recipe(recipe_file), None, "2.1.0", RELEASED, TODAY)


def test_a_place_that_does_not_answer_is_asked_again_later(recipe_file: Path, tmp_path: Path) -> None:
    text = recipe_file.read_text().replace("https://github.com", "http://127.0.0.1:1")
    recipe_file.write_text(text)

    with pytest.raises(TryLater, match="--runner-archive FILE needs no network"):
        read_pin(read_recipe(recipe_file), None, "2.1.0", RELEASED, TODAY)


def test_the_program_writes_its_configuration_through_the_links(tmp_path: Path, archive: Path) -> None:
    """What stands for the listener writes as actions/runner does: links hold, and nothing secret is in the folder."""
    folder, memory = unpack(archive, tmp_path / "root"), tmp_path / "memory"
    memory.mkdir()
    for name in CONFIGURED:
        (folder / name).unlink()
        (folder / name).symlink_to(memory / name)
    secret = "eyJ1c2VyIjoic2VjcmV0In0="
    jit = json.dumps(dict.fromkeys(CONFIGURED, secret)).encode()

    said = subprocess.run(
        [folder / "run.sh"],
        env={"PATH": "/usr/bin:/bin", "ACTIONS_RUNNER_INPUT_JITCONFIG": base64.b64encode(jit).decode()},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )

    assert "Listening for Jobs ['run']" in said.stdout
    assert {path.name for path in memory.iterdir()} == set(CONFIGURED)
    assert all((folder / name).is_symlink() for name in CONFIGURED)
