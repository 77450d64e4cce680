"""Some errors say "later": then the rest goes on, and the next hint or sweep comes back to what was left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from workers.domain.errors import TryLater

log = structlog.get_logger()


@contextmanager
def patience(kind: str, key: object) -> Iterator[None]:
    """End the block quietly if it cannot go on now; what was not written has not happened."""
    try:
        yield
    except TryLater as error:
        log.info("later", kind=kind, id=key, why=str(error))
