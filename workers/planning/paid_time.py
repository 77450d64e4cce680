"""Paid time: a machine is paid for by periods that were begun, counted from when it was asked for.

    │◀──────────────── one period, paid for ────────────────▶│
    │ takes runners                     │ only if no other   │
    │                                   │ host has room      │
    │                                   │            │ LAST: if it is empty and nobody needs it, it is given back
                                        ENDING

So work is packed into hours that are paid for beyond its likely end, and a host whose hour ends runs empty in time. A
request comes before the machine that it asks for, so a period by our count never ends after the cloud's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from workers.domain.host import Host


@dataclass(frozen=True)
class Billing:
    """How a cloud counts."""

    period: timedelta
    ending: timedelta
    """So long before its end a host gets work only if no other has room; none: until the end."""
    last: timedelta
    """So long before its end an empty host is given back: longer than a few looks, so that none is missed."""


# A host that nobody needs stays to the end of its period all the same: the jobs of a morning come close together.
BY_THE_SECOND: Final = Billing(timedelta(minutes=15), ending=timedelta(0), last=timedelta(minutes=1))
# What is begun costs a whole hour. Most jobs are done in a quarter of one; a cloud that is short of requests may need
# a few looks to end a machine.
BY_THE_HOUR: Final = Billing(timedelta(hours=1), ending=timedelta(minutes=15), last=timedelta(minutes=3))


def paid_for(host: Host, billing: Billing, now: datetime) -> timedelta:
    """Return how much of the period that has begun is left: more than nothing, and a period at most."""
    return billing.period - (now - host.requested_at) % billing.period


def is_ending(host: Host, billing: Billing, now: datetime) -> bool:
    """Say whether what is put on this host now would likely begin another period of it."""
    return paid_for(host, billing, now) <= billing.ending


def is_at_its_end(host: Host, billing: Billing, now: datetime) -> bool:
    """Say whether this host, if nobody needs it, is to be given back now."""
    return paid_for(host, billing, now) <= billing.last


def packed(candidates: Iterable[Host], billing_of: Callable[[str], Billing], now: datetime) -> list[Host]:
    """Return the hosts in the order in which they are to be filled: those that are ending last, else as they were.

    `billing_of` says how a cloud counts, by its name.
    """
    return sorted(candidates, key=lambda host: is_ending(host, billing_of(host.cloud), now))
