"""What this machine was told when it was rented, and where that is read.

metadata service (notices.py) ─┐
file that cloud-init wrote ────┴─▶ UserData ──register──▶ Surroundings, kept on disk for every later start
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from pydantic import TypeAdapter, ValidationError

from workers.domain.errors import BadInput, Unfit, Unreachable
from workers.domain.messages import Surroundings
from workers.domain.names import HostId
from workers.domain.user_data import host_of_token, read_cloud_config

HTTPS_PORT: Final = 443


@dataclass(frozen=True)
class UserData:
    """All that a machine is told when it is launched."""

    control_url: str
    control_ca_sha256: str
    token: str = field(repr=False)

    @property
    def host_id(self) -> HostId:
        """Whose the token is. Raises `BadInput`."""
        return host_of_token(self.token)


_USER_DATA: Final = TypeAdapter(UserData)
_SURROUNDINGS: Final = TypeAdapter(Surroundings)


def read_user_data(text: str) -> UserData:
    """Read user data as the cloud serves it. Raises `BadInput`."""
    return _read_told(read_cloud_config(text))


class FileMetadata:
    """A machine whose cloud has no metadata service: cloud-init has written what it was told, and nobody gives notice.

    Raises as `notices.MetadataService` does.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    async def user_data(self) -> UserData:
        """Return what the machine was told; `Unreachable` until cloud-init has written it."""
        try:
            return _read_told(self._file.read_text())
        except FileNotFoundError as error:
            raise Unreachable(f"{self._file}: cloud-init has not written it yet") from error
        except OSError as error:
            raise BadInput(f"{self._file} cannot be read ({error.strerror}); launch the machine anew") from error
        except UnicodeDecodeError:
            pass  # not its cause: that holds the token
        raise BadInput(f"{self._file} cannot be read (it is no text in UTF-8); launch the machine anew")

    async def local_address(self) -> str:
        """Return the address with which this machine reaches its control plane."""
        url = urlsplit((await self.user_data()).control_url)
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:  # sends nothing
                probe.connect((url.hostname or "", url.port or HTTPS_PORT))
                return str(probe.getsockname()[0])
        except OSError as error:
            raise Unreachable(f"no way to the control plane at {url.netloc} yet: {error}") from error

    async def public_address(self) -> str | None:
        """Nobody knows it."""

    async def interruption_at(self) -> datetime | None:
        """Nobody announces one."""

    async def rebalance_at(self) -> datetime | None:
        """Nobody recommends it."""

    def moment(self, now: datetime) -> datetime:
        """Return the machine's own time: there is no other."""
        return now


def keep_surroundings(directory: Path, surroundings: Surroundings) -> None:
    """Write down what came with the registration, so that every later start of the daemon finds it."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = directory / "surroundings.fresh"
    with fresh.open("wb") as writing:
        writing.write(_SURROUNDINGS.dump_json(surroundings))
        writing.flush()
        os.fsync(writing.fileno())
    fresh.replace(directory / "surroundings.json")


def kept_surroundings(directory: Path) -> Surroundings:
    """Return what came with the registration. Raises `Unfit`."""
    file = directory / "surroundings.json"
    try:
        return _SURROUNDINGS.validate_json(file.read_bytes())
    except OSError as error:
        raise Unfit(f"{file} cannot be read ({error.strerror}); replace the machine") from error
    except ValidationError as error:
        raise Unfit(f"{file} does not say where this host is ({_first(error)}); replace the machine") from error


def _read_told(text: str) -> UserData:
    try:
        told = _USER_DATA.validate_json(text)
    except ValidationError as error:
        raise BadInput(f"user data: {_first(error)}; launch the machine with spot-runner's user data") from error
    _ = told.host_id
    return told


def _first(error: ValidationError) -> str:
    """Return what is wrong at first and where, without what stands there."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"]) or "body"
    return f"{place}: {first['msg']}"
