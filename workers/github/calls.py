"""One request to GitHub: the budget that it needs, whoever makes it, and its errors in our words."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from http import HTTPStatus
from typing import Any, Final, NamedTuple, TypeAlias

from github import GithubException
from github.Requester import Requester
from requests import RequestException

from workers.domain.errors import TryLater, Unreachable
from workers.domain.pace import Heard, Permit, Seat, Urgency, Wish
from workers.github.answers import Answer, Json, content_of, heard_of, raise_ours, refusal_of, understood
from workers.github.homes import Homes
from workers.github.login import TIMEOUT_S, Login, Token
from workers.github.pace import NoPace, Pace

# GitHub's own prices, in points of the secondary limit.
READING: Final = 1
WRITING: Final = 5


# Whose call it is: an installation's, whichever of our Apps it is of and may be asked by, or exactly this one's.
Asker: TypeAlias = int | Seat


class Call(NamedTuple):
    """What is asked, in PyGithub's order."""

    verb: str
    path: str
    parameters: Json | None = None
    headers: dict[str, str] | None = None
    body: Json | None = None


class Calls:
    """Asks GitHub, as an installation of an App or as the App itself (`as_app`)."""

    def __init__(
        self, logins: Sequence[Login], pace: Pace | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        """`clock` returns Unix time; without a pace nothing is counted."""
        self._logins = {login.app_id: login for login in logins}
        self._pace, self._clock = pace or NoPace(), clock
        self._homes = Homes(list(self._logins), lambda seat, path: self._ask((seat,), "GET", path), clock)

    @property
    def apps(self) -> Sequence[int]:
        """The ids of our Apps, the first one first."""
        return list(self._logins)

    def ask(
        self,
        asker: Asker,
        verb: str,
        path: str,
        *,
        body: Json | None = None,
        parameters: Json | None = None,
        headers: dict[str, str] | None = None,
        urgency: Urgency = Urgency.POLL,
    ) -> Answer:
        """Call GitHub; raises `GithubException` for what it refuses, to be met within `translated`, and `Throttled`."""
        seats = (asker,) if isinstance(asker, Seat) else self._homes.seats(asker, path)
        return self._made(Wish(seats, points_of(verb), urgency), Call(verb, path, parameters, headers, body))

    def home_of(self, installation_id: int, path: str) -> int:
        """Return the first of the installations by which this path may be asked; raises what `ask` raises."""
        return self._homes.seats(installation_id, path)[0].installation

    def register(self, installation_id: int, path: str, scope: str, body: Json) -> Answer:
        """Register a runner: as `ask`, and its name has a place in line while there is no budget for it."""
        seats = self._homes.seats(installation_id, path)
        wish = Wish(seats, WRITING, Urgency.RUNNER, scope, body["name"])
        return self._made(wish, Call("POST", path, body=body))

    @contextmanager
    def translated(self, asker: Asker, doing: str) -> Iterator[None]:  # noqa: ARG002 - one place for all
        """Turn what PyGithub raises into our errors; `doing` says in words what was tried."""
        try:
            with understood(doing):
                yield
        except RequestException as error:
            raise Unreachable(f"{doing}: GitHub did not answer within {TIMEOUT_S} s") from error
        except GithubException as error:
            raise_ours(error, doing, self._clock())

    def _ask(self, seats: tuple[Seat, ...], verb: str, path: str, parameters: Json | None = None) -> Answer:
        """Ask for what everything else waits for."""
        return self._made(Wish(seats, points_of(verb), Urgency.RUNNER), Call(verb, path, parameters))

    def _made(self, wish: Wish, call: Call) -> Answer:
        """Make a call as soon as it is granted; with another token and a permit of its own if the first one has ended.

        A token that ends before its time, as when it was revoked, says nothing of the call, and nothing was done. More
        than one try of that kind may shut us out (docs.github.com, "Authenticating to the REST API", failed logins).
        """
        permit = self._pace.take(wish)
        status, said, text = self._answered(permit, call)
        if status == HTTPStatus.UNAUTHORIZED and permit.seat.installation != 0:
            again = self._pace.take(replace(wish, seats=(permit.seat,)))
            status, said, text = self._answered(again, call)
        if status >= HTTPStatus.BAD_REQUEST:
            raise Requester.createException(status, said, refusal_of(text))
        return Answer(status, said, content_of(text))

    def _answered(self, permit: Permit, call: Call) -> tuple[int, dict[str, Any], str]:
        """Make a call that was granted, and write down what its answer says of our pace and of our token."""
        heard = Heard()
        try:
            status, said, text = self._client(permit.seat).requestJson(*call)
            heard = heard_of(status, said, text, self._clock())
        finally:
            self._pace.settle(permit, heard)
        if status == HTTPStatus.UNAUTHORIZED and permit.seat.installation != 0:
            self._logins[permit.seat.app].forget(permit.seat.installation)
        return status, said, text

    def _client(self, seat: Seat) -> Requester:
        login = self._logins[seat.app]
        if seat.installation == 0:
            return login.as_app()
        return login.as_installation(seat.installation, lambda: self._fetch(seat))

    def _fetch(self, seat: Seat) -> Token:
        path = f"/app/installations/{seat.installation}/access_tokens"
        try:
            answer = self._ask((Seat(seat.app, 0),), "POST", path).body
        except GithubException as error:
            if error.status == HTTPStatus.NOT_FOUND and self._homes.forget(seat):
                gone = f"App {seat.app} is not installed any more as {seat.installation}"
                raise TryLater(f"{gone}; where it was, another App may be, and is asked next time") from error
            raise
        return Token(answer["token"], datetime.fromisoformat(answer["expires_at"]))


def as_app(app: int) -> Seat:
    """Return who asks if one of our Apps asks as itself."""
    return Seat(app, 0)


def runners_path(place: str) -> str:
    """Return the path of the registrations of a repository, `owner/name`, or of a whole organization, `owner`."""
    return f"/repos/{place}/actions/runners" if "/" in place else f"/orgs/{place}/actions/runners"


def points_of(verb: str) -> int:
    """Return what a call costs of the secondary limit."""
    return READING if verb in {"GET", "HEAD", "OPTIONS"} else WRITING
