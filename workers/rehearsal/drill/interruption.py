"""One interruption: what is to be done, decided by the seed alone, and what became of it. Pure."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Any, Final

from workers.domain.errors import BadInput

Json = dict[str, Any]

# A random moment within a job, not always the one right after it has begun.
DELAY_MAX_S: Final = 4.0
NOTICE_MAX_S: Final = 600.0


class Outcome(StrEnum):
    """What an interruption came to for the jobs on the host, the worst last."""

    SURVIVED = auto()
    """Each was moved, or ended by itself in time."""
    PARKED = auto()
    """One was parked, resumed and went on."""
    RERUN = auto()
    """One was lost and succeeded in another attempt, or was cancelled in it."""
    LOST = auto()
    """One was lost, and no other attempt came to its end."""


@dataclass(frozen=True)
class Plan:
    """What is to be done."""

    number: int
    delay_s: float
    """How long to wait once a job is at work."""
    notice_s: float
    fault: str | None
    choice: float
    """0 to 1: which of the hosts that have jobs."""

    def chosen(self, hosts: Sequence[str]) -> str:
        """Return the host that is to be taken away."""
        return hosts[min(int(self.choice * len(hosts)), len(hosts) - 1)]


def planned(seed: int, number: int, notice_s: tuple[float, float], faults: Sequence[str]) -> Plan:
    """Return the plan of one interruption; the same seed and number give the same, wherever a drill was continued."""
    chance = random.Random(f"{seed}/{number}")  # noqa: S311 it chooses moments and hosts, nothing secret
    return Plan(
        number=number,
        delay_s=round(chance.uniform(0, DELAY_MAX_S), 2),
        notice_s=round(chance.uniform(*notice_s), 1),
        fault=_dealt(seed, number, faults) if faults else None,
        choice=chance.random(),
    )


def _dealt(seed: int, number: int, faults: Sequence[str]) -> str:
    """Deal the faults like cards: none comes a second time before all have come."""
    deal, place = divmod(number, len(faults))
    cards = sorted(faults)
    random.Random(f"{seed}/deal/{deal}").shuffle(cards)  # noqa: S311 it chooses an order, nothing secret
    return cards[place]


@dataclass(frozen=True)
class Interruption:
    """What was done."""

    plan: Plan
    host: str
    at: float
    """Unix time of the notice."""
    jobs: tuple[int, ...]
    """The first attempt of each job that ran on the host, or on any if all are taken."""
    takes_all: bool = False
    """Every other host is taken back at the same moment."""

    @property
    def judged_by(self) -> str | None:
        """The host whose loss is judged; None: any, since a guest may reach one whose notice is not heard yet."""
        return None if self.takes_all else self.host

    def is_over(self, now: float, *, is_gone: bool) -> bool:
        """Say at this Unix time whether nothing is taken any more; `is_gone`: the host is, and nothing is leaving it.

        It may be empty, and given back, long before the others whose end it was to share.
        """
        return is_gone and (not self.takes_all or now >= self.at + self.plan.notice_s)

    def told(self, outcome: Outcome) -> Json:
        """Return it for the report."""
        return {
            "number": self.plan.number,
            "host": self.host,
            "notice_s": self.plan.notice_s,
            "fault": self.plan.fault,
            "jobs": list(self.jobs),
            "outcome": outcome.value,
        }


def blamed(done: Interruption, others: Sequence[Interruption], first: int, attempts: Sequence[Json]) -> bool:
    """Say whether an attempt at a job failed by this interruption: it was the last one of the job before that.

    `attempts` are all at the job whose first attempt is `first`, each with `conclusion` and `completed_at`.
    """
    later = [one.at for one in others if first in one.jobs and one.at > done.at]
    failed_at = [one["completed_at"] for one in attempts if one["conclusion"] not in {"success", "cancelled", None}]
    return any(done.at <= at and not any(moment <= at for moment in later) for at in failed_at)


def worst(outcomes: Sequence[Outcome]) -> Outcome:
    """Return what an interruption came to that came to these for its jobs."""
    return max(outcomes, key=list(Outcome).index, default=Outcome.SURVIVED)


def span(text: str) -> tuple[float, float]:
    """Read `A` or `A..B`, in seconds. Raises `BadInput`."""
    first, _, last = text.partition("..")
    try:
        low, high = float(first), float(last or first)
    except ValueError:
        raise BadInput(f"--notice-seconds {text!r}: write one number of seconds, or two as 20..60") from None
    if not 0 <= low <= high <= NOTICE_MAX_S:
        raise BadInput(f"--notice-seconds {text!r}: use 0 to {NOTICE_MAX_S:.0f}, the smaller one first")
    return low, high
