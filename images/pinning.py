"""Writes into versions.toml which file a kernel is: the one place where a hash comes from, because it has read it.

FILE, or URL fetched ─▶ is it a kernel's package for this machine? ─▶ version, sha256, file ─▶ lines of its table
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx

from images.versions import Kernel
from workers.domain.errors import BadInput, TryLater

FETCH_LIMIT_S: Final = 60.0
READ_LIMIT_S: Final = 60.0
BYTES_MAX: Final = 2 << 30
# The lead of an RPM (rpm's lib/rpmlead.c): magic, then type, architecture and name at these places.
RPM_MAGIC: Final = b"\xed\xab\xee\xdb"
RPM_LEAD: Final = 96
RPM_TYPE: Final = slice(6, 8)
RPM_ARCHITECTURE: Final = slice(8, 10)
RPM_NAME: Final = slice(10, 76)
RPM_BINARY: Final = bytes((0, 0))
RPM_X86: Final = bytes((0, 1))
_VERSION: Final = re.compile(r"[A-Za-z0-9.+~:_-]+")
# What is written down is read by everybody, so it names no user.
_URL: Final = re.compile(r"https://[A-Za-z0-9.:-]+/[A-Za-z0-9._~/%+=&?,:@!^-]*")
FIELDS: Final = ("version", "sha256", "file")


@dataclass(frozen=True)
class Pin:
    """Which file it is."""

    version: str
    sha256: str
    file: str | None = None
    """Where it was read from, if the entry's `url` does not lead to it."""


def read_pin(kernel: Kernel, file: Path, given: str | None = None) -> Pin:
    """Read a kernel's package, which was `given` so, and say which it is. Raises `BadInput` if it is none."""
    lead, sha256 = _lead_and_hash(file)
    version = _deb_version(file) if kernel.kind == "deb" else _rpm_version(file, lead)
    if not _VERSION.fullmatch(version):
        raise BadInput(f"{file}: it calls itself {version!r}, which is no kernel's version; fetch it again")
    is_told = kernel.kind == "rpm-repository" and given is not None and "://" in given
    return Pin(version, sha256, given if is_told else None)


def check_is_pinned(kernel: Kernel, file: Path) -> None:
    """Raise `BadInput` if this is not the file that was pinned."""
    _, sha256 = _lead_and_hash(file)
    if sha256 != kernel.sha256:
        raise BadInput(
            f"{file}: it is not {kernel.version}, the pinned one, but sha256:{sha256}; name that, or pin this"
        )


def _lead_and_hash(file: Path) -> tuple[bytes, str]:
    try:
        with file.open("rb") as content:
            lead = content.read(RPM_LEAD)
            content.seek(0)
            return lead, hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise BadInput(f"{file}: {error.strerror}; name the kernel's package") from error


def check_can_be_pinned(name: str, kernel: Kernel, given: str | None) -> None:
    """Raise `BadInput` if no file makes this entry pinned, or none is named that would."""
    if kernel.kind == "distribution":
        raise BadInput(f"kernel {name!r} is {kernel.distribution}'s own, whose signed list pins it; there is no file")
    if kernel.kind == "rpm-repository" and given is None:
        raise BadInput(
            f"kernel {name!r}: {kernel.url} only says where packages are, not what is in them; "
            "name the kernel's .rpm of that repository, a file or an https URL"
        )
    if given is not None and given.startswith("https://") and not _URL.fullmatch(given):
        raise BadInput(f"{_shown(given)}: write an https URL without a user, spaces and quotes, or name a file")


@contextmanager
def at_hand(place: str, client: httpx.Client | None = None) -> Iterator[Path]:
    """Give the file at a path, or at an https URL fetched for as long. Raises `BadInput` and `TryLater`."""
    if "://" not in place:
        yield Path(place)
        return
    if not place.startswith("https://"):
        raise BadInput(f"{_shown(place)}: what is fetched without TLS may be anything; give an https URL or a file")
    with tempfile.TemporaryDirectory(prefix="spot-pin.") as folder:
        fetched = Path(folder) / (Path(urlsplit(place).path).name or "package")
        with client or httpx.Client(follow_redirects=True, timeout=FETCH_LIMIT_S) as fetching:
            _fetch(fetching, place, fetched)
        yield fetched


def _shown(url: str) -> str:
    """Return a URL without its user and password, to be read by anybody."""
    return re.sub(r"//.*@", "//…@", url)


def _fetch(client: httpx.Client, url: str, into: Path) -> None:
    try:
        with client.stream("GET", url) as answer, into.open("wb") as partial:
            if answer.status_code != httpx.codes.OK:
                raise BadInput(f"{url}: answered {answer.status_code}; is it there? Or give a file")
            for chunk in answer.iter_bytes():
                partial.write(chunk)
                if partial.tell() > BYTES_MAX:
                    raise BadInput(f"{url}: more than {BYTES_MAX >> 30} GiB; no kernel's package is so large")
    except httpx.HTTPError as error:
        raise TryLater(f"{url}: {error}; a FILE needs no network") from error


def _rpm_version(file: Path, lead: bytes) -> str:
    if len(lead) < RPM_LEAD or not lead.startswith(RPM_MAGIC):
        raise BadInput(f"{file}: it is no RPM; name the kernel's .rpm")
    if lead[RPM_TYPE] != RPM_BINARY or lead[RPM_ARCHITECTURE] != RPM_X86:
        raise BadInput(f"{file}: it is no RPM with programs for x86; name the kernel's .x86_64.rpm")
    return lead[RPM_NAME].rstrip(b"\0").decode(errors="replace")


def _deb_version(file: Path) -> str:
    fields = ("Package", "Version", "Architecture")
    try:
        said = subprocess.run(
            ["dpkg-deb", "--field", str(file), *fields],
            check=True,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=READ_LIMIT_S,
        ).stdout
    except FileNotFoundError as error:
        raise BadInput(f"{file}: dpkg-deb, which reads it, is not installed; install what Debian calls dpkg") from error
    except subprocess.SubprocessError as error:
        raise BadInput(f"{file}: it is no Debian package; name the kernel's .deb") from error
    told = dict(line.split(": ", 1) for line in said.splitlines() if ": " in line)
    if told.get("Architecture") != "amd64" or not told.get("Package", "").startswith("linux-image-"):
        what = f"{told.get('Package')} for {told.get('Architecture')}"
        raise BadInput(f"{file}: it is {what}; name a linux-image-….deb for amd64")
    return f"{told['Package']}-{told.get('Version')}"


def write_pin(versions: Path, name: str, pin: Pin) -> None:
    """Let an entry mean this file from now on; everything else in versions.toml stays as it is, byte for byte.

    Raises `BadInput` if the entry is no table of its own.
    """
    before = versions.read_bytes()
    written = pinned_text(before, name, pin)
    if _without_pin(written, name) != _without_pin(before, name):
        raise BadInput(f"{versions}: [kernel.{name}] must be a table of its own with a field in each line")
    partial = versions.with_name(f".{versions.name}.{os.getpid()}")
    try:
        partial.write_bytes(written)
        partial.chmod(versions.stat().st_mode)
        partial.rename(versions)
    finally:
        partial.unlink(missing_ok=True)


def pinned_text(text: bytes, name: str, pin: Pin) -> bytes:
    """Return a versions file in which the lines of this pin, and of no other, stand in its entry's table."""
    lines = text.splitlines(keepends=True)
    at = next((n for n, line in enumerate(lines) if _header(line) == f"kernel.{name}"), None)
    if at is None:
        raise BadInput(f"versions.toml: no line says [kernel.{name}]; write the entry as a table of its own")
    end = next((n for n in range(at + 1, len(lines)) if _header(lines[n]) is not None), len(lines))
    old = [n for n in range(at + 1, end) if _field(lines[n]) in FIELDS]
    # Right after a line that is whole in itself: other values may go on over several.
    after = old[0] - 1 if old else next((n for n in range(at + 1, end) if _field(lines[n]) == "url"), at)
    line_end = b"\r\n" if b"\r\n" in text else b"\n"
    told = zip(FIELDS, (pin.version, pin.sha256, pin.file), strict=True)
    fresh = [f'{name} = "{value}"'.encode() + line_end for name, value in told if value is not None]
    kept_before = [_ended(line, line_end) for n, line in enumerate(lines[: after + 1]) if n not in old]
    return b"".join([*kept_before, *fresh, *(line for n, line in enumerate(lines) if n > after and n not in old)])


def _ended(line: bytes, line_end: bytes) -> bytes:
    return line if line.endswith(b"\n") else line + line_end


def _header(line: bytes) -> str | None:
    found = re.match(rb"\s*\[([^\[\]]+)\]\s*(#.*)?$", line.rstrip())
    return found[1].decode(errors="replace").strip() if found else None


def _field(line: bytes) -> str | None:
    found = re.match(rb"\s*([A-Za-z0-9_-]+)\s*=", line)
    return found[1].decode() if found else None


def _without_pin(text: bytes, name: str) -> object:
    try:
        read = tomllib.loads(text.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"versions.toml is not TOML with these lines in it: {error}") from error
    entry = read.get("kernel", {}).get(name, {})
    for field in FIELDS:
        entry.pop(field, None)
    return read
