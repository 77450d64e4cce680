"""Five hundred jobs are queued at once in two organizations, and GitHub lets one App register 180 runners in a minute.

The law of our pace, GitHub's limits as the rehearsal enforces them, and looks that come back when they were told to; on
a fake clock. Calls take as long as GitHub's do.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random

import pytest

from tests.fakes.clock import FakeClock
from workers.domain.errors import Throttled
from workers.domain.pace import Limits, Permit, Seat, Urgency, Wish
from workers.github.answers import heard_of
from workers.github.pace import LocalPace
from workers.rehearsal.github.rates import RateLimits, Rates

JOBS = 500
CEILING_PER_MINUTE = 180
SEATS = {"alpha": Seat(1, 11), "beta": Seat(1, 12)}


@dataclass
class Burst:
    """Workers that each look at one runner at a time."""

    order: list[str]
    """The organization of each job, in the order in which they are queued."""
    polls_per_s: float = 0.0
    clock: FakeClock = field(default_factory=FakeClock)
    random: Random = field(default_factory=lambda: Random(7))
    granted: list[tuple[float, str]] = field(default_factory=list)
    registered: list[tuple[float, str]] = field(default_factory=list)
    looks: int = 0

    def __post_init__(self) -> None:
        self.github = RateLimits(self.clock, Rates())
        self.pace = LocalPace(Limits(), self.now)
        self.events: list[tuple[float, int, object]] = []
        self.numbers = itertools.count()

    def now(self) -> float:
        return self.clock.now().timestamp()

    def at(self, moment: float, what: object) -> None:
        heapq.heappush(self.events, (moment, next(self.numbers), what))

    def run(self) -> float:
        """Return how many seconds passed from the first job to the last registration."""
        self.clock.move(timedelta(minutes=10))  # they have been at work for long
        begun = self.now()
        for number, owner in enumerate(self.order):
            self.at(begun + number * 0.001, self.registration(f"{owner}-{number}", owner))
        for number in range(int(self.polls_per_s * 300)):
            self.at(begun + number / self.polls_per_s, self.poll())
        while len(self.registered) < len(self.order):
            moment, _, what = heapq.heappop(self.events)
            self.clock.move(timedelta(seconds=max(0.0, moment - self.now())))
            assert isinstance(what, Iterator)
            for wait in what:
                self.at(self.now() + wait, what)
                break
        return self.registered[-1][0] - begun

    def registration(self, name: str, owner: str) -> Iterator[float]:
        wish = Wish((SEATS[owner],), 5, Urgency.RUNNER, f"{owner}/one", name)
        permit = None
        while permit is None:
            self.looks += 1
            try:
                permit = self.pace.take(wish)
            except Throttled as error:
                at = error.at or self.clock.now()
                yield (at - self.clock.now()).total_seconds() + self.random.uniform(0, 0.1)
        self.granted.append((self.now(), owner))
        yield from self.call(permit, "POST", f"/repos/{owner}/one")
        self.registered.append((self.now(), owner))

    def poll(self) -> Iterator[float]:
        try:
            permit = self.pace.take(Wish((SEATS["alpha"],), 1, Urgency.POLL))
        except Throttled:
            return
        yield from self.call(permit, "GET", None)

    def call(self, permit: Permit, verb: str, scope: str | None) -> Iterator[float]:
        yield self.random.uniform(0.05, 0.5)
        caller = (permit.seat.app, permit.seat.installation)
        refused = self.github.admit(caller, verb, scope)
        assert refused is None, "GitHub had to refuse us"
        headers = {name.lower(): value for name, value in self.github.headers(caller).items()}
        yield self.random.uniform(0.05, 0.5)
        self.pace.settle(permit, heard_of(201, headers, "", self.now()))


def alternating(jobs: int) -> list[str]:
    return ["alpha", "beta"] * (jobs // 2)


def one_first(jobs: int) -> list[str]:
    return ["alpha"] * (jobs // 2) + ["beta"] * (jobs // 2)


ALTERNATING, ONE_FIRST = alternating(JOBS), one_first(JOBS)


@pytest.mark.parametrize("order", [ALTERNATING, ONE_FIRST], ids=["alternating", "one first"])
@pytest.mark.parametrize("polls_per_s", [0.0, 3.0])
def test_500_jobs_are_registered_at_nine_tenths_of_what_github_allows(order: list[str], polls_per_s: float) -> None:
    burst = Burst(order, polls_per_s)
    seconds = burst.run()
    assert len(burst.registered) == JOBS
    assert not burst.github.refused
    assert JOBS / seconds * 60 >= 0.9 * CEILING_PER_MINUTE
    assert burst.looks <= 4 * JOBS, "whoever was told when to come does not ask in between"


def test_a_pace_that_begins_knowing_nothing_is_as_fast_in_the_end() -> None:
    burst = Burst(ALTERNATING)
    burst.pace.ledger.since = burst.now() + 600  # the moment at which they are queued
    seconds = burst.run()
    assert not burst.github.refused
    assert JOBS / seconds * 60 >= 0.9 * CEILING_PER_MINUTE


@pytest.mark.parametrize("order_of", [alternating, one_first], ids=["alternating", "one first"])
def test_neither_organization_waits_while_the_other_is_served_out_of_turn(
    order_of: Callable[[int], list[str]],
) -> None:
    """So many that whoever asked first could fill more than one minute alone, if there were no turns."""
    order, compared = order_of(2 * JOBS), 0
    burst = Burst(order)
    burst.run()
    at_once = [owner for _, owner in burst.granted[:CEILING_PER_MINUTE]]
    assert at_once == order[:CEILING_PER_MINUTE], "while there is budget, who asks first is served first"
    served, had = Counter[str](), Counter(at_once)
    for _, together in itertools.groupby(burst.granted[CEILING_PER_MINUTE:], key=lambda one: int(one[0])):
        served.update(owner for _, owner in together)
        if all(served[owner] + had[owner] < order.count(owner) for owner in SEATS):
            assert abs(served["alpha"] - served["beta"]) <= 2
            compared = served.total()
    assert compared >= CEILING_PER_MINUTE, "a whole minute of turns was looked at"
