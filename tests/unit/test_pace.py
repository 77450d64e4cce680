"""The law of our pace: whatever is asked and however long answers take, no limit of GitHub's is ever passed."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.domain.pace import ANSWER_LIMIT_S, Heard, Ledger, Limits, Permit, Seat, Urgency, Wait, Wish
from workers.domain.windows import HOUR_S
from workers.github.ledgers import read, written

LIMITS = Limits(points=60, app_points=90, requests=300, registrations=20)
SEATS = (Seat(1, 11), Seat(1, 12), Seat(2, 21))
START = 1_000_000.0


def registration(name: str, scope: str = "octo/hello", seats: Sequence[Seat] = SEATS[:1]) -> Wish:
    return Wish(tuple(seats), 5, Urgency.RUNNER, scope, name)


def warm() -> Ledger:
    """Return a ledger that has known everything for long."""
    return Ledger(since=START - 1000)


class Counting:
    """GitHub's side: it counts a call when it arrives, and its hour begins with the first."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, Permit]] = []
        self.hours: dict[Seat, tuple[float, int]] = {}

    def arrive(self, permit: Permit, at: float) -> Heard:
        self.calls.append((at, permit))
        reset_at, left = self.hours.get(permit.seat, (0.0, 0))
        if at >= reset_at:
            reset_at, left = at + HOUR_S, LIMITS.requests
        assert left > 0, "more requests in an hour than GitHub allows"
        self.hours[permit.seat] = (reset_at, left - 1)
        return Heard(LIMITS.requests, left - 1, reset_at)

    def most(self, span_s: float, key: object) -> int:
        """Return the most that was ever counted in one span."""
        mine = sorted((at, amount) for at, permit in self.calls if (amount := amount_of(permit, key)))
        most, first, total = 0, 0, 0
        for at, amount in mine:
            total += amount
            while mine[first][0] <= at - span_s:
                total -= mine[first][1]
                first += 1
            most = max(most, total)
        return most


def amount_of(permit: Permit, key: object) -> int:
    if key == permit.scope:
        return 1
    return permit.points if key in {permit.seat, permit.seat.app} else 0


def any_wish(random: Random) -> Wish:
    return Wish(
        seats=tuple(random.sample(SEATS, random.randint(1, 3))),
        points=random.choice([1, 5]),
        urgency=random.choice([Urgency.RUNNER, *Urgency]),
        scope=random.choice([None, "octo/hello", "octo"]),
        name=random.choice([None, str(random.randint(0, 30))]),
    )


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1 << 32),
    pause_s=st.sampled_from([0.01, 0.3, 2.0]),
    latency_s=st.sampled_from([0.1, 3.0, 12.0]),
    since=st.sampled_from([START, START - 1000]),
)
def test_no_limit_is_passed_in_any_span_however_long_calls_take(
    seed: int, pause_s: float, latency_s: float, since: float
) -> None:
    """Many ask for more than there is, in bursts; how long a call is on its way there and back is anybody's guess."""
    random, github, ledger, now = Random(seed), Counting(), Ledger(since=since), START
    events: list[tuple[float, int, Permit, Heard | float]] = []
    order = itertools.count()
    for number in range(250):
        now += 70.0 if number % 60 == 59 else random.uniform(0, pause_s)
        while events and events[0][0] <= now:
            at, _, permit, more = heapq.heappop(events)
            if isinstance(more, float):
                heard = github.arrive(permit, at)
                if random.random() < 0.9:  # whoever called may not live to hear of it
                    heapq.heappush(events, (at + more, next(order), permit, heard))
            else:
                ledger.settle(permit, more, at)
        ledger = read(written(ledger)) if number % 16 == 0 else ledger
        found = ledger.take(any_wish(random), LIMITS, now)
        if isinstance(found, Permit):
            there, back = random.uniform(0, latency_s), random.uniform(0, latency_s)
            heapq.heappush(events, (now + there, next(order), found, back))
        else:
            assert now < found.until <= now + 1000
    while events:
        at, _, permit, more = heapq.heappop(events)
        if isinstance(more, float):
            github.arrive(permit, at)
    for seat in SEATS:
        assert github.most(60, seat) <= LIMITS.points
        assert github.most(60, seat.app) <= LIMITS.app_points
    for scope in ("octo/hello", "octo"):
        assert github.most(300, scope) <= LIMITS.registrations


def test_a_call_that_was_never_answered_is_counted_as_if_it_came_as_late_as_it_can() -> None:
    ledger = warm()
    for number in range(12):
        assert isinstance(ledger.take(registration(str(number)), LIMITS, START), Permit)
    assert isinstance(ledger.take(registration("late"), LIMITS, START + ANSWER_LIMIT_S + 59), Wait)
    assert isinstance(ledger.take(registration("late"), LIMITS, START + ANSWER_LIMIT_S + 62), Permit)


def test_what_is_less_urgent_leaves_room_for_what_is_more_urgent() -> None:
    spent = {}
    for urgency in Urgency:
        ledger = warm()
        wish = Wish(SEATS[:1], 1, urgency)
        spent[urgency] = next(n for n in itertools.count() if isinstance(ledger.take(wish, LIMITS, START), Wait))
        assert isinstance(ledger.take(registration("a"), LIMITS, START), Permit) == (urgency is not Urgency.RUNNER)
    assert spent == {Urgency.RUNNER: 60, Urgency.POLL: 45, Urgency.SWEEP: 30}


def test_an_hour_keeps_its_last_requests_for_jobs_that_wait() -> None:
    ledger = warm()
    permit = ledger.take(Wish(SEATS[:1], 1, Urgency.POLL), LIMITS, START)
    assert isinstance(permit, Permit)
    ledger.settle(permit, Heard(300, 100, START + 600), START)  # forty of which may be on their way
    granted = Counter[Urgency]()
    for urgency in (Urgency.SWEEP, Urgency.POLL, Urgency.RUNNER):
        for second in range(100):
            found = ledger.take(Wish(SEATS[:1], 1, urgency), Limits(), START + second)
            granted[urgency] += isinstance(found, Permit)
    assert granted == {Urgency.SWEEP: 0, Urgency.POLL: 0, Urgency.RUNNER: 40}
    wait = ledger.take(registration("a"), LIMITS, START + 100)
    assert isinstance(wait, Wait)
    assert wait.until == START + 600


def test_another_hour_begins_when_github_says_so_or_when_the_old_one_is_over() -> None:
    ledger = warm()
    permit = ledger.take(Wish(SEATS[:1], 1, Urgency.RUNNER), LIMITS, START)
    assert isinstance(permit, Permit)
    ledger.settle(permit, Heard(300, 0, START + 600), START)
    assert isinstance(ledger.take(registration("a"), LIMITS, START + 599), Wait)
    assert isinstance(ledger.take(registration("a"), LIMITS, START + 600), Permit)


def test_an_answer_of_the_hour_before_changes_nothing() -> None:
    ledger = warm()
    permit = ledger.take(Wish(SEATS[:1], 1, Urgency.RUNNER), LIMITS, START)
    assert isinstance(permit, Permit)
    ledger.settle(permit, Heard(300, 299, START + 3600), START)
    left = ledger.hours[SEATS[0]].left
    ledger.settle(permit, Heard(300, 0, START - 1), START)
    assert ledger.hours[SEATS[0]].left == left


def test_an_answer_that_nothing_has_changed_costs_nothing_of_the_hour() -> None:
    ledger = warm()
    for _ in range(50):
        permit = ledger.take(Wish(SEATS[:1], 1, Urgency.RUNNER), LIMITS, START)
        assert isinstance(permit, Permit)
        ledger.settle(permit, Heard(300, 300, START + 3600, is_free=True), START)
    assert ledger.hours[SEATS[0]].left >= 239


def told(heard: Heard) -> Ledger:
    """Return a ledger in which the first seat was told this, and which was written down since."""
    ledger = warm()
    permit = ledger.take(Wish(SEATS[:1], 1, Urgency.RUNNER), LIMITS, START)
    assert isinstance(permit, Permit)
    ledger.settle(permit, heard, START)
    return read(written(ledger))


def stopped(ledger: Ledger, now: float) -> set[Seat]:
    """Return who may not ask now, and make sure that they are told to come back at the end."""
    found = {}
    for seat, urgency in itertools.product((*SEATS, Seat(1, 0), Seat(2, 0)), Urgency):
        wait = ledger.take(Wish((seat,), 1, urgency), LIMITS, now)
        found[seat, urgency] = isinstance(wait, Wait)
        assert not isinstance(wait, Wait) or wait.until == START + 120
    by_seat = {seat: {is_stopped for (one, _), is_stopped in found.items() if one == seat} for seat, _ in found}
    assert all(len(whether) == 1 for whether in by_seat.values()), "however urgent it is"
    return {seat for seat, whether in by_seat.items() if True in whether}


@pytest.mark.parametrize(
    ("heard", "stops"),
    [
        (Heard(retry_at=START + 120), {Seat(1, 11), Seat(1, 12), Seat(1, 0)}),
        (Heard(300, 290, START + 3600, retry_at=START + 120), {Seat(1, 11), Seat(1, 12), Seat(1, 0)}),
        (Heard(300, 0, START + 120, retry_at=START + 120), {Seat(1, 11)}),
    ],
    ids=["secondary", "secondary with an hour left", "primary"],
)
def test_a_retry_after_stops_the_whole_app_and_no_other_unless_an_hour_is_spent(heard: Heard, stops: set[Seat]) -> None:
    """GitHub's secondary limit is of the App, its primary one of the installation."""
    ledger = told(heard)
    assert stopped(ledger, START + 1) == stops
    assert stopped(ledger, START + 119) == stops
    assert stopped(ledger, START + 120) == set()


def test_a_call_that_may_go_by_another_app_does_so_while_its_own_is_stopped() -> None:
    ledger = told(Heard(retry_at=START + 120))
    found = ledger.take(registration("a", seats=(SEATS[1], SEATS[2])), LIMITS, START + 1)
    assert isinstance(found, Permit)
    assert found.seat == SEATS[2]


def test_who_stands_in_line_is_kept_nothing_in_a_stopped_app_but_all_in_the_other_one() -> None:
    ledger, both = told(Heard(retry_at=START + 120)), (SEATS[1], SEATS[2])
    for number in range(24):
        found = ledger.take(registration(str(number), f"org-{number}", both), LIMITS, START + 1)
        assert isinstance(found, Permit) == (number < 12), "as much as the other App has"
        if isinstance(found, Permit):
            ledger.settle(found, Heard(), START + 1)
    late = ledger.take(registration("late", "org-late", SEATS[2:]), LIMITS, START + 63)
    assert isinstance(late, Wait), "twelve go first"
    served = [ledger.take(registration(str(n), f"org-{n}", both), LIMITS, START + 63) for n in range(12, 24)]
    assert all(isinstance(one, Permit) and one.seat == SEATS[2] for one in served)


def test_a_call_goes_to_the_app_that_has_budget() -> None:
    ledger, both = warm(), (SEATS[0], SEATS[2])
    apps = Counter[int]()
    for number in range(24):
        found = ledger.take(registration(str(number), f"org-{number}", both), LIMITS, START)
        assert isinstance(found, Permit)
        apps[found.seat.app] += 1
    assert apps == {1: 12, 2: 12}
    assert isinstance(ledger.take(registration("more", "org-x", both), LIMITS, START), Wait)


def test_a_new_ledger_begins_low_and_opens_after_a_span() -> None:
    ledger = Ledger(since=START)
    granted = sum(isinstance(ledger.take(registration(str(n)), LIMITS, START), Permit) for n in range(12))
    assert granted == 3
    wait = ledger.take(registration("x"), LIMITS, START + 1)
    assert isinstance(wait, Wait)
    assert wait.until <= START + 61


def test_what_a_copy_remembers_is_not_spent_again() -> None:
    old, lost = warm(), Ledger(since=START)
    for number in range(12):
        old.take(registration(str(number)), LIMITS, START)
    lost.found_again(old)
    assert isinstance(lost.take(registration("x"), LIMITS, START + 1), Wait)


# ---------------------------------------------------------------- the line


def served_in_order(
    ledger: Ledger, names: Sequence[tuple[str, str]], limits: Limits, slack: float = 0.0
) -> list[tuple[float, str, str]]:
    """Let all of these ask now and whenever they were told to come; return who was served when."""
    random = Random(1)
    waiting = [(START, number, name, scope) for number, (name, scope) in enumerate(names)]
    served = []
    while waiting:
        now, number, name, scope = heapq.heappop(waiting)
        found = ledger.take(registration(name, scope), limits, now)
        if isinstance(found, Wait):
            heapq.heappush(waiting, (found.until + random.uniform(0, slack), number, name, scope))
        else:
            ledger.settle(found, Heard(), now)
            served.append((now, name, scope.partition("/")[0]))
    return served


def test_two_accounts_take_turns_although_one_asked_for_all_of_its_runners_first() -> None:
    limits = Limits(points=60, app_points=60)
    names = [(f"a-{n}", "a/one") for n in range(60)] + [(f"b-{n}", "b/one") for n in range(60)]
    served = served_in_order(warm(), names, limits)
    assert [owner for _, _, owner in served[:12]] == ["a"] * 12  # nobody else had asked
    counted = Counter[str]()
    for _, together in itertools.groupby(served[12:108], key=lambda one: one[0]):
        counted.update(owner for _, _, owner in together)
        assert abs(counted["a"] - counted["b"]) <= 1
    for owner in "ab":
        mine = [name for _, name, one in served if one == owner]
        assert mine == sorted(mine, key=lambda name: int(name[2:]))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=150), st.floats(0, 3))
def test_everybody_in_line_is_served_at_the_pace_that_github_allows(owners: list[str], slack: float) -> None:
    limits = Limits(points=60, app_points=60)
    names = [(f"{owner}-{n}", f"{owner}/one") for n, owner in enumerate(owners)]
    served = served_in_order(warm(), names, limits, slack)
    assert len(served) == len(owners)
    spans = (len(owners) - 1) // 12
    assert served[-1][0] - START <= spans * (61 + 2 * slack) + 1


def test_the_place_of_one_that_does_not_come_is_given_away() -> None:
    ledger, limits = warm(), Limits(points=5, app_points=5)
    first = ledger.take(registration("first"), limits, START)
    assert isinstance(first, Permit)
    ledger.settle(first, Heard(), START)
    for name in ("gone", "there"):
        assert isinstance(ledger.take(registration(name), limits, START), Wait)
    assert isinstance(ledger.take(registration("there"), limits, START + 75), Wait)
    assert isinstance(ledger.take(registration("there"), limits, START + 82), Permit)
