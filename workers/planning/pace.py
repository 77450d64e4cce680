"""How often GitHub is asked about what it may not have told us: less often the less it still answers in this hour."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

# So much of the hour's requests is for what cannot wait: tokens, registrations, reruns.
PLENTY: Final = 0.5
SCARCE: Final = 0.1
# GitHub counts anew every hour, so what is scarce now is not for longer than this.
RENEWAL: Final = timedelta(hours=1)


def slowed(interval: timedelta, left: float) -> timedelta:
    """Return the interval for a part `left` (0 to 1) of the hour's requests."""
    if left >= PLENTY:
        return interval
    return RENEWAL if left < SCARCE else min(interval * (PLENTY / left), RENEWAL)
