"""An OCI image as a root file system: fetched by skopeo, unpacked by umoci, and looked at before anything is added.

    REF or a folder ─skopeo─▶ a layout of our own, one image ─umoci─▶ root

Nothing of the image is ever run on this machine.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from workers.domain.errors import BadInput, Unfit
from workers.host.bill import Part, debian_part
from workers.host.programs import run
from workers.host.roots import inside

PROGRAMS: Final = ("skopeo", "umoci")
ARCHITECTURE: Final = "amd64"
TAG: Final = "image"
FETCH_LIMIT_S: Final = 3600
# Without them no step of a job would run, or the agent could not make the runner's user.
NEEDED: Final = {"/bin/sh": "no step of a job could run", "/etc/passwd": "the runner could have no user"}


@dataclass(frozen=True)
class Image:
    """One image, fetched."""

    source: str
    """As it was asked for."""
    layout: Path
    digest: str
    """Its ID, `sha256:…`: of its configuration, which names what is in every layer, however the layers are packed."""
    environment: tuple[tuple[str, str], ...]
    """What its containers have in their environment."""

    @property
    def part(self) -> Part:
        """Return what a bill of materials says of it."""
        return Part("container", self.source, self.digest, sha256=self.digest.removeprefix("sha256:"))


def fetch_image(source: str, layout: Path) -> Image:
    """Fetch an image, by its reference or out of a folder that is an OCI layout, into a layout of its own.

    Raises `BadInput` if it is for another machine or no image, and `Unfit` if a program is missing.
    """
    command = [
        "skopeo",
        "--insecure-policy",
        "--override-arch",
        ARCHITECTURE,
        "--override-os",
        "linux",
        "copy",
        "--quiet",
    ]
    try:
        run([*command, _place(source), f"oci:{layout}:{TAG}"], FETCH_LIMIT_S)
    except Unfit as error:
        if "not installed" in str(error):
            raise
        raise BadInput(f"{source}: no image could be read there ({_last_words(error)}); is its name right?") from error
    try:
        digest = str(_manifest(layout)["config"]["digest"])
        config = _json(_blob(layout, digest))
    except (KeyError, IndexError, ValueError, OSError) as error:
        raise BadInput(
            f"{source}: it holds no image that could be read ({type(error).__name__}); fetch it again"
        ) from error
    if (built_for := (config.get("os"), config.get("architecture"))) != ("linux", ARCHITECTURE):
        raise BadInput(f"{source}: it is for {built_for[0]}/{built_for[1]}; guests are linux/{ARCHITECTURE} so far")
    return Image(source, layout, digest, tuple(_environment(source, config)))


def _place(source: str) -> str:
    folder = Path(source)
    if not folder.is_dir():
        return f"docker://{source}"
    if not (folder / "oci-layout").is_file():
        raise BadInput(f"{source}: the folder is no OCI layout (it has no file `oci-layout`); `skopeo copy` makes one")
    return f"oci:{folder.resolve()}"


def _last_words(error: Unfit) -> str:
    told = re.findall(r'msg="((?:[^"\\]|\\.)*)"', str(error))
    return (told[-1] if told else str(error).partition(": ")[2])[:300].replace("\\", "")


def _environment(source: str, config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for one in (config.get("config") or {}).get("Env") or ():
        name, _, value = str(one).partition("=")
        if "\0" in str(one):
            raise BadInput(
                f"{source}: its variable {name!r:.60} holds a zero byte, and no program takes one; remove it"
            )
        if name:
            yield name, value


def _manifest(layout: Path) -> dict[str, Any]:
    return _json(_blob(layout, _json(layout / "index.json")["manifests"][0]["digest"]))


def _blob(layout: Path, digest: str) -> Path:
    return layout / "blobs" / digest.replace(":", "/", 1)


def _json(path: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(path.read_text())
    return facts


def unpack_image(image: Image, bundle: Path) -> Path:
    """Unpack an image to a folder that does not exist yet; return its root. Raises `BadInput` if it lacks a need."""
    run(["umoci", "--log=error", "unpack", "--image", f"{image.layout}:{TAG}", str(bundle)], FETCH_LIMIT_S)
    root = bundle / "rootfs"
    for path, consequence in NEEDED.items():
        if inside(root, path) is None:
            raise BadInput(f"{image.source}: it has no {path}, so {consequence}; take an image of a whole distribution")
    return root


def packages_of(root: Path) -> Iterator[Part]:
    """Yield what is installed in a root, as far as it is a distribution made of Debian packages."""
    database, release = inside(root, "/var/lib/dpkg/status"), inside(root, "/etc/os-release")
    if database is None:
        return
    told = re.search(r'^ID="?([a-z0-9._-]+)"?$', release.read_text() if release else "", re.MULTILINE)
    shown = "--showformat=${Package} ${Version} ${Architecture} ${db:Status-Status}\n"
    for line in run(["dpkg-query", f"--admindir={database.parent}", "--show", shown]).splitlines():
        name, version, architecture, status = line.split()
        if status == "installed":
            yield debian_part(name, version, architecture, told[1] if told else "debian")
