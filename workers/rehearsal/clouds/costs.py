"""What a job has cost, and what it would have cost elsewhere: pure, so that every figure can be checked by hand.

Moments are Unix times, prices US dollars.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

HOUR_S: Final = 3600.0
MINUTE_S: Final = 60.0
# Linux, 2 cores, in a private repository beyond the free minutes; each minute that was begun counts. Until the end of
# 2025 it was 0.008. https://docs.github.com/billing/reference/actions-runner-pricing
GITHUB_USD_PER_MINUTE: Final = 0.006
# EC2 bills by the second, a minute at least.
EC2_LEAST_S: Final = 60.0


@dataclass(frozen=True)
class Stay:
    """A part of a job on one host."""

    host: str
    begun_at: float
    ended_at: float
    usd_per_hour: float
    """Of what the job had of the host."""
    on_demand_usd_per_hour: float
    """Of the same, at the full price of the same cloud."""


@dataclass(frozen=True)
class JobCost:
    """One job, three ways."""

    usd: float
    on_demand_usd: float
    """As long at the full price where it began."""
    github_usd: float
    github_minutes: int


def job_cost(stays: Sequence[Stay]) -> JobCost:
    """Return what a job has cost; `stays` in their order, one at least."""
    span_s = stays[-1].ended_at - stays[0].begun_at
    minutes = math.ceil(span_s / MINUTE_S)
    return JobCost(
        usd=sum(one.usd_per_hour * (one.ended_at - one.begun_at) / HOUR_S for one in stays),
        on_demand_usd=stays[0].on_demand_usd_per_hour * span_s / HOUR_S,
        github_usd=minutes * GITHUB_USD_PER_MINUTE,
        github_minutes=minutes,
    )


def ec2_bill(usd_per_hour: float, ran_s: float, *, was_taken_back: bool) -> float:
    """Return what EC2 bills for a spot instance: nothing for one that it ends itself within the first hour."""
    if was_taken_back and ran_s < HOUR_S:
        return 0.0
    return usd_per_hour * max(ran_s, EC2_LEAST_S) / HOUR_S


def hetzner_bill(usd_per_hour: float, ran_s: float) -> float:
    """Return what Hetzner bills for a server: every hour that was begun."""
    return usd_per_hour * max(1, math.ceil(ran_s / HOUR_S))
