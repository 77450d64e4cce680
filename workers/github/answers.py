"""What GitHub answers, and what its refusals mean."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from traceback import extract_tb
from typing import Any, Final, NoReturn

import structlog
from github import GithubException

from workers.domain.errors import NotThere, Refused, Throttled, Unreachable, Unrecognized
from workers.domain.pace import SECONDARY_WAIT_S, Heard

# GitHub tells this one apart from a missing permission by its text alone.
RATE_LIMIT: Final = "rate limit"

# GitHub's limits are of minutes and hours; what is further away than this was not said by GitHub.
WAIT_MAX_S: Final = 86400.0
# JSON's numbers are whole up to here.
NUMBER_MAX: Final = 2**53
# A page of HTML is no sentence.
SAID_MAX: Final = 300
# These may be taken back: GitHub gives such answers for a moment to whom and about what it knows very well.
REFUSALS: Final[Mapping[int, type[Refused]]] = {
    HTTPStatus.UNAUTHORIZED: Unrecognized,
    HTTPStatus.NOT_FOUND: NotThere,
}
# What reading an answer raises that lacks something, or has something else in its place.
_MISREAD: Final = (LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError)

log: Final = structlog.get_logger(__name__)

Json = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """One answer that is no refusal."""

    status: int
    headers: Mapping[str, str]
    """Names in small letters."""
    body: Any
    """The JSON, None if there is none."""


def content_of(text: str) -> Any:  # noqa: ANN401 - the JSON of any answer
    """Return the JSON of an answer, None if it is empty. Raises `ValueError` or `RecursionError` for anything else."""
    return json.loads(text) if text.strip() else None


def refusal_of(text: str) -> Json:
    """Return what a refusal says, its own text if that is not in GitHub's form."""
    with suppress(ValueError, RecursionError):
        if isinstance(told := content_of(text), dict):
            return told
    return {"message": text}


@contextmanager
def understood(doing: str) -> Iterator[None]:
    """Turn what comes of reading an answer that is not as GitHub describes it into `Unreachable`.

    It may be the answer of something between us and GitHub, and another one be whole. It may be a mistake of ours, too:
    so the log names the line, and nothing that stood in it, which may be a token.
    """
    try:
        yield
    except _MISREAD as error:
        at = extract_tb(error.__traceback__)[-1]
        log.warning("answer_not_understood", doing=doing, why=type(error).__name__, line=f"{at.filename}:{at.lineno}")
        raise Unreachable(
            f"{doing}: what was answered is not what GitHub's API answers ({type(error).__name__}: {error!s:.100}); "
            "look at what stands between here and GitHub"
        ) from error


def heard_of(status: int, headers: Mapping[str, str], text: str, now: float) -> Heard:
    """Return what an answer says of our pace; `now` is Unix time."""
    limit, remaining = number_in(headers, "x-ratelimit-limit"), number_in(headers, "x-ratelimit-remaining")
    reset_at = number_in(headers, "x-ratelimit-reset")
    if reset_at is not None and reset_at > now + WAIT_MAX_S:
        reset_at = None
    retry_at = None
    if is_about_our_pace(status, headers, text):
        after = wait_in(headers, now)
        if after is not None:
            retry_at = now + after
        elif remaining == 0 and reset_at is not None:
            retry_at = float(reset_at)
        else:
            retry_at = now + SECONDARY_WAIT_S
    is_free = status == HTTPStatus.NOT_MODIFIED
    return Heard(limit, remaining, None if reset_at is None else float(reset_at), retry_at, is_free)


def is_about_our_pace(status: int, headers: Mapping[str, str], text: str) -> bool:
    """Say whether this is a refusal of our pace; the primary limit says so in a header, the secondary in words."""
    if status == HTTPStatus.FORBIDDEN:
        return headers.get("x-ratelimit-remaining") == "0" or RATE_LIMIT in text.lower()
    return status == HTTPStatus.TOO_MANY_REQUESTS


def number_in(headers: Mapping[str, str], name: str) -> int | None:
    """Return a header's number, None if there is none or it is none that counts anything."""
    try:
        number = float(headers[name])
    except (KeyError, ValueError):
        return None
    return int(number) if 0 <= number <= NUMBER_MAX else None


def wait_in(headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds for which `Retry-After` asks us to wait, by number or date; None if it says nothing sound."""
    seconds: float | None = number_in(headers, "retry-after")
    if seconds is None:
        try:
            seconds = max(parsedate_to_datetime(headers["retry-after"]).timestamp() - now, 0.0)
        except (KeyError, TypeError, ValueError, OverflowError):
            return None
    return seconds if seconds <= WAIT_MAX_S else None


def raise_ours(error: GithubException, doing: str, now: float) -> NoReturn:
    """Raise the error that tells the caller what to do now; `now` is Unix time."""
    text = f"{doing}: GitHub answered {error.status}, {' '.join(sentence_of(error).split()):.{SAID_MAX}}"
    retry_at = heard_of(error.status, error.headers or {}, sentence_of(error), now).retry_at
    if retry_at is not None:
        raise Throttled(text, at=datetime.fromtimestamp(retry_at, UTC)) from error
    if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise Unreachable(text) from error
    raise REFUSALS.get(error.status, Refused)(text) from error


def sentence_of(error: GithubException) -> str:
    """Return GitHub's own words."""
    body: object = error.data
    if isinstance(body, dict):
        return str(body.get("message", body))
    return str(body)
