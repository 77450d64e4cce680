"""What this host owns, written down before it is acted on; a restarted daemon believes this and the row, nothing else.

    (nothing) ─▶ BOOTING ─▶ OWNED ─▶ SENDING ─▶ GONE
    (nothing) ─▶ RECEIVING ─▶ OWNED    SENDING ─▶ OWNED (taken back)    RECEIVING ─▶ (as before)

One file a runner, replaced as a whole and synced. GONE stays, so that an order which was long on its way is known to
be an old one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum, auto
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from workers.domain.errors import Bug
from workers.domain.messages import BootOrder, MoveOrder
from workers.domain.names import RunnerId
from workers.host.processes import ProcessName


class Standing(StrEnum):
    """How this host stands to one runner."""

    BOOTING = auto()
    """Being made here; after a restart it is thrown away and made again."""
    OWNED = auto()
    SENDING = auto()
    """Source of a migration that is not decided, as far as this host has read."""
    RECEIVING = auto()
    """Target of one."""
    GONE = auto()
    """Nothing of it is left here."""


@dataclass(frozen=True)
class Entry:
    """One runner on this host."""

    runner_id: RunnerId
    standing: Standing
    order: BootOrder | None = None
    """Its epoch is the one at which this host owns the guest; for RECEIVING the one at which it will. None: GONE."""
    process: ProcessName | None = None
    """Its QEMU."""
    move: MoveOrder | None = None
    """The migration, while it is SENDING or RECEIVING."""
    moves: int = 0
    """How often the guest has been moved."""
    package_mib: float = 0.0
    """What of its memory was the package's when it began here; 0 of one that was moved here."""
    gone_epoch: int = 0
    """The highest epoch that has ended here; orders up to it are old."""

    @property
    def epoch(self) -> int:
        """The epoch of what is here, or of what was here last."""
        return self.gone_epoch if self.order is None else self.order.epoch


def _without_key(entry: Entry) -> Entry:
    """A park's key is written to no file; a daemon that was started again needs none, since it gives the park up."""
    if entry.move is None or entry.move.park is None:
        return entry
    return replace(entry, move=replace(entry.move, park=replace(entry.move.park, key="")))


_ADAPTER: Final = TypeAdapter(Entry)
_SUFFIX: Final = ".json"


class Journal:
    """Blocks for the time of two syncs; call it from a thread."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def write(self, entry: Entry) -> None:
        """Write one runner's entry; when this returns it survives the loss of power."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        place = self._place(entry.runner_id)
        fresh = place.with_suffix(".new")
        with fresh.open("wb") as file:
            file.write(_ADAPTER.dump_json(_without_key(entry)))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(place)
        self._sync()

    def forget(self, runner_id: RunnerId) -> None:
        """Remove one runner's entry, as if it had never been here."""
        self._place(runner_id).unlink(missing_ok=True)
        self._sync()

    def entries(self) -> Iterator[Entry]:
        """Yield every entry; a half-written one was never acted on and is left out."""
        for place in sorted(self._directory.glob(f"*{_SUFFIX}")):
            try:
                yield _ADAPTER.validate_json(place.read_bytes())
            except ValidationError as error:
                raise Bug(f"the journal's {place} was written by something else: {error}") from error

    def _place(self, runner_id: RunnerId) -> Path:
        return self._directory / f"{runner_id}{_SUFFIX}"

    def _sync(self) -> None:
        directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
