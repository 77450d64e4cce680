"""How fast GitHub may be asked: one ledger for all Apps of a deployment, shared by all its workers.

    take ──▶ Permit ──(the call)──▶ settle          there is budget for it, and for all that stand in line before it
         └─▶ Wait                                   come back then; a registration has a place in line meanwhile

A seat is one installation of one App. A call may take any seat that its account has: whichever has budget. Four limits
hold at once: the secondary points of the seat and of its whole App, the seat's requests of the hour, and registrations
into one repository or organization. What is urgent may use all of each limit, polls and sweeps only a part.

The line is served in turns: within an account in the order of asking, and accounts that wait take turns, as in
start-time fair queueing (Goyal, Vin, Cheng, 1996): the turn of a ticket is one more than that of the account's ticket
before it, and no less than the turn that is served now.

Moments are Unix seconds. Nothing here reads a clock or waits.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Final, NamedTuple, TypeAlias

from workers.domain.windows import Hour, Window

POINTS_SPAN_S: Final = 60
REGISTRATIONS_SPAN_S: Final = 300
# The answer to a call that was granted is here by then, or never: connecting and reading may take ten seconds each.
ANSWER_LIMIT_S: Final = 25.0
# What we know of the past was lost; so much of each limit is used until a whole span has passed since.
LOW: Final = 0.25
HOUR_UNKNOWN: Final = 500
# A place in line is kept so long for one that was told to come and did not: a sweep of all rows comes every 15 s.
GRACE_S: Final = 20.0
# The longest wait that is announced at once; who comes then is told of the rest.
WAIT_MAX_S: Final = 900.0
WAIT_MIN_S: Final = 0.2
# GitHub: without a `Retry-After` wait for a minute at least.
SECONDARY_WAIT_S: Final = 60.0


class Urgency(Enum):
    """Who goes first when GitHub's limits are near."""

    RUNNER = auto()
    """Tokens, registrations, what must be known before them and what takes them away again: a job waits for it."""
    POLL = auto()
    """Asks what we should have been told."""
    SWEEP = auto()
    """Looks whether all is as we believe."""


SHARES: Final = {Urgency.RUNNER: 1.0, Urgency.POLL: 0.75, Urgency.SWEEP: 0.5}
# A poll or a sweep leaves so much of an hour to what is more urgent.
HOUR_KEPT: Final = {Urgency.RUNNER: 0.0, Urgency.POLL: 0.2, Urgency.SWEEP: 0.4}


# In the place of an installation: the App with all of its installations.
ALL: Final = -1


class Seat(NamedTuple):
    """One installation of one App; installation 0 is the App itself."""

    app: int
    installation: int


@dataclass(frozen=True)
class Limits:
    """What GitHub allows (docs.github.com, "Rate limits for the REST API")."""

    points: int = 900
    """Secondary points in a minute, of one installation; a GET is 1, everything else 5."""
    app_points: int = 900
    """The same over all installations of one App."""
    requests: int = 5000
    """In an hour, until GitHub says otherwise."""
    registrations: int = 1500
    """In five minutes, into one repository or organization."""


@dataclass(frozen=True)
class Wish:
    """One call that somebody wants to make."""

    seats: tuple[Seat, ...]
    """Any of these will do."""
    points: int
    urgency: Urgency
    scope: str | None = None
    """Where a runner is to be registered."""
    name: str | None = None
    """Whom a place in line is kept for, if there is no budget now."""

    @property
    def kind(self) -> tuple[tuple[Seat, ...], int, str | None]:
        """What decides which room it takes."""
        return self.seats, self.points, self.scope


@dataclass(frozen=True)
class Permit:
    """Make the call, as this installation."""

    seat: Seat
    points: int
    scope: str | None
    booked_at: float


@dataclass(frozen=True)
class Wait:
    """Do not call; ask again then."""

    until: float
    why: str


@dataclass(frozen=True)
class Heard:
    """What an answer says of our pace."""

    limit: int | None = None
    remaining: int | None = None
    reset_at: float | None = None
    retry_at: float | None = None
    """We are to ask nothing before."""
    is_free: bool = False
    """It costs nothing of the hour: nothing has changed since we asked before."""

    @property
    def is_primary(self) -> bool:
        """Whether the hour of one installation is spent; any other refusal of our pace is of its App's whole."""
        return self.remaining == 0


@dataclass
class Ticket:
    """One place in line."""

    name: str
    owner: str
    turn: int
    due_at: float
    wish: Wish


Plain: TypeAlias = Any
"""What JSON can carry."""


@dataclass
class Ledger:
    """What was spent, what is left and who waits."""

    since: float
    """Nothing is known of the time before."""
    windows: dict[str, Window] = field(default_factory=dict)
    hours: dict[Seat, Hour] = field(default_factory=dict)
    blocked: dict[Seat, float] = field(default_factory=dict)
    line: list[Ticket] = field(default_factory=list)
    turn: int = 0
    """The highest that was served."""
    turns: dict[str, int] = field(default_factory=dict)
    """The last turn that each account was given, if that is still to come or is being served."""

    # ------------------------------------------------------------ asking

    def take(self, wish: Wish, limits: Limits, now: float, low: float = 1.0) -> Permit | Wait:
        """Grant a call, or say when to ask again; `low` is the part of every limit that is used at all."""
        self._forget(now)
        view = _View(self, limits, SHARES[wish.urgency] * low, HOUR_KEPT[wish.urgency], now)
        ticket = self._ticket(wish, now) if wish.name is not None else None
        for (seats, points, scope), times in Counter(one.wish.kind for one in self._before(ticket)).items():
            view.keep_for(seats, points, scope, times)
        seat = max(wish.seats, key=lambda seat: view.room(seat, wish.scope), default=None)
        if seat is None or view.room(seat, wish.scope) < wish.points:
            wait = view.wait(wish)
            if ticket is not None:
                self._keep(ticket, wait.until)
            return wait
        if ticket is not None:
            self._serve(ticket)
        return self._book(wish, seat, now)

    def settle(self, permit: Permit, heard: Heard, now: float) -> None:
        """Write down that a call was answered, and what the answer says."""
        for key in _keys(permit.seat, permit.scope):
            if key in self.windows:
                amount = 1 if key.startswith("scope ") else permit.points
                self.windows[key].move(amount, permit.booked_at, now)
        hour = self.hours.get(permit.seat)
        if hour is not None:
            if heard.is_free:
                hour.left += 1
            if heard.limit is not None and heard.remaining is not None and heard.reset_at is not None:
                hour.hear(heard.limit, heard.remaining, heard.reset_at, now)
        if heard.retry_at is not None:
            stopped = permit.seat if heard.is_primary else Seat(permit.seat.app, ALL)
            self.blocked[stopped] = max(heard.retry_at, self.blocked.get(stopped, 0.0))

    def blocked_until(self, seat: Seat) -> float:
        """Return the moment before which GitHub wants to hear nothing from this seat; one that is past: it may ask."""
        return max(self.blocked.get(one, 0.0) for one in (seat, Seat(seat.app, ALL)))

    def _book(self, wish: Wish, seat: Seat, now: float) -> Permit:
        booked_at = now + ANSWER_LIMIT_S
        for key in _keys(seat, wish.scope):
            window = self.windows.setdefault(key, Window(_span(key)))
            window.spend(1 if key.startswith("scope ") else wish.points, booked_at)
        self.hours[seat].spend()
        return Permit(seat, wish.points, wish.scope, booked_at)

    # ------------------------------------------------------------ the line

    def _ticket(self, wish: Wish, now: float) -> Ticket:
        """Return the place that somebody has in line, or would get."""
        known = next((one for one in self.line if one.name == wish.name), None)
        if known is not None:
            known.wish = wish
            return known
        owner = (wish.scope or "").partition("/")[0].lower()
        turn = max(self.turn, self.turns.get(owner, 0)) + 1
        return Ticket(wish.name or "", owner, turn, now, wish)

    def _before(self, ticket: Ticket | None) -> list[Ticket]:
        """Return who goes first: nobody goes before what is urgent and cannot stand in line itself."""
        if ticket is None:
            return []
        index = self.line.index(ticket) if ticket in self.line else None
        return self.line[:index] if index is not None else [one for one in self.line if one.turn <= ticket.turn]

    def _keep(self, ticket: Ticket, due_at: float) -> None:
        ticket.due_at = due_at
        if ticket not in self.line:
            self.line.append(ticket)
            self.line.sort(key=lambda one: one.turn)  # stable: of equal turns the earlier comes first
            self.turns[ticket.owner] = ticket.turn

    def _serve(self, ticket: Ticket) -> None:
        if ticket in self.line:
            self.line.remove(ticket)
            self.turn = max(self.turn, ticket.turn)

    def _forget(self, now: float) -> None:
        for window in self.windows.values():
            window.forget(now)
        self.windows = {key: window for key, window in self.windows.items() if window.spent}
        self.blocked = {seat: until for seat, until in self.blocked.items() if until > now}
        self.line = [one for one in self.line if one.due_at + GRACE_S > now]
        self.turns = {owner: turn for owner, turn in self.turns.items() if turn > self.turn}
        for hour in self.hours.values():
            hour.begin_again(now)

    # ------------------------------------------------------------ losing and finding again

    def found_again(self, other: Ledger) -> None:
        """Take over what a copy knows that somebody has kept of an earlier ledger, of what this one does not."""
        for key, window in other.windows.items():
            self.windows.setdefault(key, Window(window.span_s)).add(window)
        for seat, until in other.blocked.items():
            self.blocked[seat] = max(until, self.blocked.get(seat, 0.0))
        for seat, hour in other.hours.items():
            self.hours.setdefault(seat, hour)


class _View:
    """A ledger at one moment, as one urgency sees it; what is kept for others is taken off."""

    def __init__(self, ledger: Ledger, limits: Limits, share: float, hour_kept: float, now: float) -> None:
        self._ledger, self._limits, self._share, self._hour_kept, self._now = ledger, limits, share, hour_kept, now
        self._is_low = now < ledger.since + POINTS_SPAN_S
        self._kept: dict[str, int] = {}
        self._free: dict[str, int] = {}

    def room(self, seat: Seat, scope: str | None) -> int:
        """Return how many points may be spent on this seat now."""
        return min(self._own_room(seat, scope), self._room_of(f"app {seat.app}"))

    def keep_for(self, seats: tuple[Seat, ...], points: int, scope: str | None, times: int) -> None:
        """Leave room for those that go first, on the seats they would take; none where they could not go anyway."""
        while times > 0:
            able = [seat for seat in seats if self._times(seat, points, scope) > 0]
            if not able:
                return
            seat = max(able, key=lambda seat: self._room_of(f"app {seat.app}"))
            now = min(times, self._times(seat, points, scope)) if len(able) == 1 else 1
            for key in _keys(seat, scope):
                self._kept[key] = self._kept.get(key, 0) + now * (1 if key.startswith("scope ") else points)
            self._kept[f"hour {seat}"] = self._kept.get(f"hour {seat}", 0) + now
            times -= now

    def _times(self, seat: Seat, points: int, scope: str | None) -> int:
        """Return how many such calls a seat could make, whatever its App has."""
        if self._ledger.blocked_until(seat) > self._now:
            return 0
        times = min(self._hour_room(seat), self._room_of(f"seat {seat.app} {seat.installation}") // points)
        return times if scope is None else min(times, self._room_of(f"scope {scope.lower()}"))

    def wait(self, wish: Wish) -> Wait:
        """Say when there may be room, if all goes as it is known now."""
        waits = [self._wait_on(seat, wish) for seat in wish.seats]
        if not waits:
            return Wait(self._now + SECONDARY_WAIT_S, "the App is installed nowhere near")
        first = min(waits, key=lambda wait: wait.until)
        until = min(max(first.until, self._now + WAIT_MIN_S), self._now + WAIT_MAX_S)
        return Wait(until, first.why)

    def _wait_on(self, seat: Seat, wish: Wish) -> Wait:
        found = Wait(self._ledger.blocked_until(seat), "GitHub asked us to wait")
        hour = self._hour(seat)
        if self._hour_room(seat) < 1:
            found = max(found, Wait(hour.reset_at, "this hour's requests are spent"), key=lambda one: one.until)
        for key in _keys(seat, wish.scope):
            amount = self._kept.get(key, 0) + (1 if key.startswith("scope ") else wish.points)
            found = max(
                found, Wait(self._fits_at(key, amount), f"the limit of {key} is reached"), key=lambda one: one.until
            )
        return found

    def _fits_at(self, key: str, amount: int) -> float:
        window, now = self._ledger.windows.get(key, Window(_span(key))), self._now
        at = window.fits_at(amount, self._limit(key), now)
        if not self._is_low:
            return at
        full = window.fits_at(amount, int(_limit(key, self._limits) * self._share), now)
        return min(at, max(full, self._ledger.since + POINTS_SPAN_S))

    def _own_room(self, seat: Seat, scope: str | None) -> int:
        """Return the room that a seat has by itself, whatever its App has."""
        if self._ledger.blocked_until(seat) > self._now or self._hour_room(seat) < 1:
            return 0
        if scope is not None and self._room_of(f"scope {scope.lower()}") < 1:
            return 0
        return self._room_of(f"seat {seat.app} {seat.installation}")

    def _room_of(self, key: str) -> int:
        if key not in self._free:
            window = self._ledger.windows.get(key)
            self._free[key] = self._limit(key) - (window.used(self._now) if window else 0)
        return self._free[key] - self._kept.get(key, 0)

    def _limit(self, key: str) -> int:
        low = LOW if self._is_low else 1.0
        return int(_limit(key, self._limits) * self._share * low)

    def _hour(self, seat: Seat) -> Hour:
        if seat not in self._ledger.hours:
            self._ledger.hours[seat] = Hour(self._limits.requests, HOUR_UNKNOWN, self._now + 3600)
        return self._ledger.hours[seat]

    def _hour_room(self, seat: Seat) -> int:
        hour = self._hour(seat)
        kept = hour.limit * self._hour_kept
        if hour.is_guess:
            kept = min(hour.limit, HOUR_UNKNOWN) * self._hour_kept
        return int(hour.left - kept) - self._kept.get(f"hour {seat}", 0)


def _keys(seat: Seat, scope: str | None) -> tuple[str, ...]:
    keys = (f"app {seat.app}", f"seat {seat.app} {seat.installation}")
    return keys if scope is None else (*keys, f"scope {scope.lower()}")


def _span(key: str) -> int:
    return REGISTRATIONS_SPAN_S if key.startswith("scope ") else POINTS_SPAN_S


def _limit(key: str, limits: Limits) -> int:
    match key.partition(" ")[0]:
        case "app":
            return limits.app_points
        case "seat":
            return limits.points
        case _:
            return limits.registrations
