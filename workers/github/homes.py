"""Where several Apps are installed: an account that has more than one may be served by whichever has budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Final

from github import GithubException
from requests import RequestException

from workers.domain.errors import TryLater
from workers.domain.pace import Seat
from workers.github.answers import Answer

# Somebody may install another App at any time, and nobody tells us which account it was.
HOME_LIMIT_S: Final = 600.0
# GitHub did not say of each App, so ask again soon.
UNKNOWN_LIMIT_S: Final = 60.0


class Homes:
    """The installations of every App in every account."""

    def __init__(self, apps: Sequence[int], ask: Callable[[Seat, str], Answer], clock: Callable[[], float]) -> None:
        """`ask` asks GitHub as an App; `clock` returns Unix time."""
        self._apps, self._ask, self._clock = apps, ask, clock
        self._known: dict[str, tuple[float, tuple[Seat, ...]]] = {}

    def seats(self, installation_id: int, path: str) -> tuple[Seat, ...]:
        """Return the seats from which this path of the API may be asked, those of the first App first.

        Where no App of ours is installed, `installation_id` is taken for the first App's: GitHub will say that it is
        not there. Raises what `ask` raises, if nothing is known of any App.
        """
        own = (Seat(self._apps[0], installation_id),)
        if len(self._apps) == 1:
            return own
        place = "/".join(path.split("/")[: 4 if path.startswith("/repos/") else 3])
        until, seats = self._known.get(place, (0.0, ()))
        if until <= self._clock():
            until, seats = self._look(place)
            if seats:
                self._known[place] = until, seats
        return seats or own

    def forget(self, seat: Seat) -> bool:
        """Look anew, since GitHub knows of no such installation; say whether it was believed to be there."""
        gone = [place for place, (_, seats) in self._known.items() if seat in seats]
        for place in gone:
            self._known.pop(place, None)
        return bool(gone)

    def _look(self, place: str) -> tuple[float, tuple[Seat, ...]]:
        seats, doubt = list[Seat](), list[Exception]()
        for app in self._apps:
            try:
                found = self._ask(Seat(app, 0), f"{place}/installation").body
            except GithubException as error:
                if error.status != HTTPStatus.NOT_FOUND:
                    doubt.append(error)
            except (TryLater, RequestException) as error:
                doubt.append(error)
            else:
                if found["suspended_at"] is None:
                    seats.append(Seat(app, found["id"]))
        if doubt and not seats:
            raise doubt[0]
        return self._clock() + (UNKNOWN_LIMIT_S if doubt else HOME_LIMIT_S), tuple(seats)
