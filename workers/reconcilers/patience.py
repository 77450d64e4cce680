"""What every reconciler does with an error that says "later": it stops, and the next hint or sweep begins again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from workers.domain.errors import LeaseLost, TryLater

log = structlog.get_logger()


@contextmanager
def patience(kind: str, key: object) -> Iterator[None]:
    """End the block quietly if it cannot go on now; nothing that was not written has happened."""
    try:
        yield
    except LeaseLost:
        log.debug("lease_lost", kind=kind, id=key)
    except TryLater as error:
        log.info("try_later", kind=kind, id=key, because=str(error))
