"""What the simulated GitHub is told when it is started."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from workers.rehearsal.github.rates import NO_RATES, Rates
from workers.rehearsal.github.world import Limits


@dataclass(frozen=True)
class Settings:
    """One simulator."""

    url: str
    """The API's root as callers see it."""
    webhook_url: str
    webhook_secret: str = field(repr=False)
    app_key: str
    """The public half of the App's key, PEM."""
    app_id: int = 1
    limits: Limits = field(default_factory=Limits)
    rates: Rates = NO_RATES
    state: Path | None = None
    """Where the log of deliveries is written."""
    senders: int = 1
    """How many deliveries are on their way at once; only one sender keeps their order."""
    checked_every: int = 1
    """One in so many calls and deliveries of a kind is held against the contract."""
