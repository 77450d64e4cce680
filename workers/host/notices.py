"""The instance metadata service: what the machine was told at launch, and when it is taken away.

Each notice is told as soon as it is seen and again in every round until the control plane has answered.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final, Protocol, TypeVar

import httpx
import structlog
from pydantic import AwareDatetime, TypeAdapter, ValidationError

from workers.domain.errors import BadInput, SpotError, Unreachable
from workers.domain.messages import Notice, NoticeKind
from workers.host.told import UserData, read_user_data
from workers.ports import Clock

T = TypeVar("T")

TOKEN_LIFE_S: Final = 300
# Renewed before its end, so that no round is lost to a token that has just expired.
TOKEN_USE_S: Final = 240
# The service is on the machine itself or one hop away.
CALL_LIMIT_S: Final = 2.0
# Answers are dated in whole seconds, and a busy machine reads them late; what differs by more is a wrong clock.
CLOCK_TRUST: Final = timedelta(seconds=3)
INTERRUPTION: Final = "latest/meta-data/spot/instance-action"
REBALANCE: Final = "latest/meta-data/events/recommendations/rebalance"
HETZNERS_ADDRESS: Final = "hetzner/v1/metadata/public-ipv4"

_log: Final = structlog.get_logger()


@dataclass(frozen=True)
class _Action:
    """The body of an interruption notice; whatever the action is, the machine is not ours afterwards."""

    action: str
    time: AwareDatetime


@dataclass(frozen=True)
class _Recommendation:
    noticeTime: AwareDatetime  # noqa: N815  the service's own name


@dataclass(frozen=True)
class Paths:
    """Where one cloud's service has what we need; None: it has no such thing."""

    user_data: str
    local_address: str
    public_address: str
    interruption: str | None = None
    rebalance: str | None = None
    token: str | None = None
    """Every other call shows what a PUT there has given."""


IMDS_V2: Final = Paths(
    "latest/user-data",
    "latest/meta-data/local-ipv4",
    "latest/meta-data/public-ipv4",
    INTERRUPTION,
    REBALANCE,
    "latest/api/token",
)
# Its servers stand in the internet themselves, and it takes none away with a notice.
HETZNER: Final = Paths("hetzner/v1/userdata", HETZNERS_ADDRESS, HETZNERS_ADDRESS)

_ACTION: Final = TypeAdapter(_Action)
_RECOMMENDATION: Final = TypeAdapter(_Recommendation)


class MetadataService:
    """Every call raises `Unreachable` without an answer, `BadInput` for one that makes no sense."""

    def __init__(self, url: str, paths: Paths = IMDS_V2) -> None:
        self._paths = paths
        self._client = httpx.AsyncClient(base_url=url, trust_env=False, timeout=CALL_LIMIT_S, follow_redirects=False)
        self._token = ""
        self._token_until = 0.0
        self._dated_at: datetime | None = None

    def moment(self, now: datetime) -> datetime:
        """Return what time it is by the cloud, which the machine's own clock says more exactly unless it is wrong.

        The cloud's is the one by which it takes the machine away.
        """
        dated_at = self._dated_at
        return now if dated_at is None or abs(now - dated_at) <= CLOCK_TRUST else dated_at

    async def user_data(self) -> UserData:
        """Return what the machine was told."""
        body = await self._needed(self._paths.user_data)
        try:
            return read_user_data(body)
        except BadInput as error:
            raise BadInput(f"the metadata service's {self._paths.user_data}: {error}") from error

    async def local_address(self) -> str:
        """Return the machine's own IPv4 address."""
        return await self._needed(self._paths.local_address)

    async def public_address(self) -> str | None:
        """Return the IPv4 address at which everybody reaches the machine, None if it has none."""
        body = await self._text(self._paths.public_address)
        return None if body is None else body.strip() or None

    async def interruption_at(self) -> datetime | None:
        """Return when the machine is taken away, None if nothing is announced."""
        path = self._paths.interruption
        body = None if path is None else await self._text(path)
        return None if path is None or body is None else _parsed(_ACTION, path, body).time

    async def rebalance_at(self) -> datetime | None:
        """Return when the cloud recommended to leave, None if it did not."""
        path = self._paths.rebalance
        body = None if path is None else await self._text(path)
        return None if path is None or body is None else _parsed(_RECOMMENDATION, path, body).noticeTime

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    async def _needed(self, path: str) -> str:
        body = await self._text(path)
        if body is None:
            raise BadInput(f"the metadata service has no {path}; launch the machine with spot-runner's user data")
        return body.strip()

    async def _text(self, path: str) -> str | None:
        answer = await self._get(path)
        if answer.status_code == httpx.codes.UNAUTHORIZED:  # the service was restarted and forgot our token
            self._token_until = 0.0
            answer = await self._get(path)
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        if not answer.is_success:
            raise Unreachable(f"the metadata service answered {answer.status_code} to {path}")
        return answer.text

    async def _get(self, path: str) -> httpx.Response:
        if self._paths.token is None:
            return await self._request("GET", path, {})
        if time.monotonic() >= self._token_until:
            lifetime = {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_LIFE_S)}
            answer = await self._request("PUT", self._paths.token, lifetime)
            if not answer.is_success:
                raise Unreachable(f"the metadata service gave no token but {answer.status_code}")
            self._token, self._token_until = answer.text, time.monotonic() + TOKEN_USE_S
        return await self._request("GET", path, {"X-aws-ec2-metadata-token": self._token})

    async def _request(self, method: str, path: str, headers: dict[str, str]) -> httpx.Response:
        try:
            answer = await self._client.request(method, path, headers=headers)
        except httpx.HTTPError as error:
            raise Unreachable(f"the metadata service at {self._client.base_url} did not answer: {error!r}") from error
        self._dated_at = _date_of(answer)
        return answer


class Notices(Protocol):
    """Who announces that a machine is taken away."""

    def moment(self, now: datetime) -> datetime:
        """Return what time it is by the cloud."""

    async def interruption_at(self) -> datetime | None:
        """Return when the machine is taken away, None if nothing is announced."""

    async def rebalance_at(self) -> datetime | None:
        """Return when the cloud recommended to leave, None if it did not."""


class NoticeWatcher:
    """Tells the control plane of every notice until it has answered, and not again after that."""

    def __init__(self, service: Notices, tell: Callable[[Notice], Awaitable[None]], clock: Clock) -> None:
        self._service = service
        self._tell = tell
        self._clock = clock
        self._answered: set[tuple[NoticeKind, datetime]] = set()

    async def watch(self, interval_s: float) -> None:
        """Look for ever; what goes wrong in one round is tried again in the next."""
        while True:
            await self.look()
            await asyncio.sleep(interval_s)

    async def look(self) -> None:
        """Make one round; a trouble with one kind of notice keeps nobody from the other."""
        for kind, ask in (
            (NoticeKind.INTERRUPTION, self._service.interruption_at),
            (NoticeKind.REBALANCE, self._service.rebalance_at),
        ):
            try:
                at = await ask()
                if at is not None and (kind, at) not in self._answered:
                    await self._pass_on(kind, at)
            except SpotError as error:
                _log.warning("notice_round_failed", kind=kind.value, error=str(error))

    async def _pass_on(self, kind: NoticeKind, at: datetime) -> None:
        left = max(0.0, (at - self._service.moment(self._clock.now())).total_seconds())
        _log.info("notice_seen", kind=kind.value, seconds_left=left)
        await self._tell(Notice(kind, left))
        self._answered.add((kind, at))


def _date_of(answer: httpx.Response) -> datetime | None:
    """Return when an answer was given, None if it does not say so in a way that can be read."""
    try:
        dated_at = parsedate_to_datetime(answer.headers.get("Date", ""))
    except ValueError:
        return None
    return dated_at if dated_at.tzinfo else None


def _parsed(adapter: TypeAdapter[T], path: str, body: str) -> T:
    try:
        return adapter.validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "body"
        raise BadInput(f"the metadata service's {path}: {place}: {first['msg']}") from error
