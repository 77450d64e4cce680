"""A ledger as text, so that it can lie in Redis. Whoever cannot read a text begins a new ledger."""

from __future__ import annotations

import json
from typing import Any

from workers.domain.pace import Ledger, Seat, Ticket, Urgency, Wish
from workers.domain.windows import Hour, Window

# Another number for every other form: two versions of us may run side by side while one replaces the other.
FORM = 1


def written(ledger: Ledger) -> str:
    """Return a ledger as text."""
    return json.dumps(
        {
            "form": FORM,
            "since": ledger.since,
            "windows": {key: [window.span_s, *window.spent.items()] for key, window in ledger.windows.items()},
            "hours": [
                [*seat, hour.limit, hour.left, hour.reset_at, hour.is_guess] for seat, hour in ledger.hours.items()
            ],
            "blocked": [[*seat, until] for seat, until in ledger.blocked.items()],
            "line": [_ticket_written(ticket) for ticket in ledger.line],
            "turn": ledger.turn,
            "turns": ledger.turns,
        },
        separators=(",", ":"),
    )


def read(text: str | bytes) -> Ledger:
    """Return the ledger that was written. Raises `ValueError`."""
    try:
        plain = json.loads(text)
        if plain["form"] != FORM:
            raise ValueError(f"a ledger of form {plain['form']}, and we know {FORM}")
        return Ledger(
            since=plain["since"],
            windows={key: Window(span_s, dict(spent)) for key, (span_s, *spent) in plain["windows"].items()},
            hours={Seat(app, place): Hour(*hour) for app, place, *hour in plain["hours"]},
            blocked={Seat(app, place): until for app, place, until in plain["blocked"]},
            line=[_ticket_read(*ticket) for ticket in plain["line"]],
            turn=plain["turn"],
            turns=plain["turns"],
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"no ledger: {error!r}") from error


def _ticket_written(ticket: Ticket) -> list[Any]:
    wish = ticket.wish
    return [
        ticket.name,
        ticket.owner,
        ticket.turn,
        ticket.due_at,
        [list(seat) for seat in wish.seats],
        wish.points,
        wish.scope,
    ]


def _ticket_read(
    name: str, owner: str, turn: int, due_at: float, seats: list[list[int]], points: int, scope: str | None
) -> Ticket:
    wish = Wish(tuple(Seat(*seat) for seat in seats), points, Urgency.RUNNER, scope, name)
    return Ticket(name, owner, turn, due_at, wish)
