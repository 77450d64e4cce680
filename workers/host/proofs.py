"""Which packages were proved on this machine already, so that a daemon that is started again is READY at once."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from workers.domain.host_class import HostClass
from workers.domain.names import PackageDigest
from workers.host.packages import BOOT_ID


@dataclass(frozen=True)
class _Proved:
    boot_id: str
    """The kernel's: another boot is another proof."""
    host_class: HostClass
    packages: tuple[PackageDigest, ...] = ()


_ADAPTER: Final = TypeAdapter(_Proved)


class Proofs:
    """Remembered in one file, which is worth nothing after a reboot or with another monitor."""

    def __init__(self, file: Path, host_class: HostClass) -> None:
        self._file = file
        self._now = _Proved(BOOT_ID.read_text().strip(), host_class)

    def known(self) -> tuple[PackageDigest, ...]:
        """Return what was proved; a file that makes no sense proves nothing."""
        try:
            told = _ADAPTER.validate_json(self._file.read_bytes())
        except (FileNotFoundError, ValidationError):
            return ()
        is_ours = (told.boot_id, told.host_class) == (self._now.boot_id, self._now.host_class)
        return told.packages if is_ours else ()

    def note(self, packages: tuple[PackageDigest, ...]) -> None:
        """Remember these, and only these."""
        fresh = self._file.with_suffix(".new")
        self._file.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_bytes(_ADAPTER.dump_json(_Proved(self._now.boot_id, self._now.host_class, packages)))
        fresh.replace(self._file)
