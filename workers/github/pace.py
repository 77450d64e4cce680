"""The budget of calls that all workers share: one ledger in Redis, changed by compare-and-set.

Without Redis each process goes on with what it saw last and a small part of every limit; with a Redis that has lost the
ledger it begins low, with what it remembers. Redis gets a second, is not asked again at once, and is never waited for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, Protocol, TypeVar

import structlog
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, WatchError
from redis.retry import Retry

from workers.domain.errors import Throttled
from workers.domain.pace import Heard, Ledger, Limits, Permit, Wait, Wish
from workers.github.ledgers import read, written

log: Final = structlog.get_logger(__name__)

REDIS_LIMIT_S: Final = 1.0
# One that has just failed would cost every call a second.
REDIS_REST_S: Final = 5.0
# Nobody has asked GitHub for so long that nothing of the ledger counts any more.
LEDGER_LIMIT_S: Final = 7200
# Each process by itself, without knowing of the others: ten of them stay within the limit.
ALONE: Final = 0.1
# Only processes compete, since the threads of one take turns; each try is a fraction of a millisecond.
TRIES_MAX: Final = 50

Result = TypeVar("Result")


class Pace(Protocol):
    """Says when GitHub may be asked."""

    def take(self, wish: Wish) -> Permit:
        """Return the permission for one call, or raise `Throttled` with the moment at which to ask again."""

    def settle(self, permit: Permit, heard: Heard) -> None:
        """Tell how a call went. It raises nothing."""


class NoPace:
    """GitHub asks for none: an Enterprise server whose administrator has set no limits."""

    def take(self, wish: Wish) -> Permit:
        """Grant everything."""
        return Permit(wish.seats[0], wish.points, wish.scope, 0.0)

    def settle(self, permit: Permit, heard: Heard) -> None:
        """Nothing is counted."""


class LocalPace:
    """The ledger of one process, or of a test."""

    def __init__(self, limits: Limits, clock: Callable[[], float], low: float = 1.0) -> None:
        """`clock` returns Unix time; `low` is the part of each limit that is used."""
        self._limits, self._clock, self._low = limits, clock, low
        self._lock = threading.Lock()
        self.ledger = Ledger(since=clock())

    def take(self, wish: Wish) -> Permit:
        """Return the permission for one call, or raise `Throttled` with the moment at which to ask again."""
        with self._lock:
            return granted(self.ledger.take(wish, self._limits, self._clock(), self._low))

    def settle(self, permit: Permit, heard: Heard) -> None:
        """Tell how a call went."""
        with self._lock:
            self.ledger.settle(permit, heard, self._clock())

    def begin_from(self, ledger: Ledger) -> None:
        """Go on from what another one knew; those that wait in its line are not ours."""
        with self._lock:
            self.ledger = read(written(ledger))
            self.ledger.line.clear()


class SharedPace:
    """The ledger of all workers of a deployment."""

    def __init__(self, redis: Redis, key: str, limits: Limits, clock: Callable[[], float]) -> None:
        """`key` is where in Redis the ledger lies."""
        self._redis, self._key, self._limits, self._clock = redis, key, limits, clock
        self._lock = threading.Lock()
        self._alone = LocalPace(limits, clock, ALONE)
        self._seen: Ledger | None = None
        self._away_until = float("-inf")
        self._promised: dict[str, Wait] = {}

    def take(self, wish: Wish) -> Permit:
        """Return the permission for one call, or raise `Throttled` with the moment at which to ask again."""
        with self._lock:
            now = self._clock()
            promised = self._promised.get(wish.name or "")
            if promised is not None and now < promised.until:
                return granted(promised)
            try:
                found = self._changed(lambda ledger: ledger.take(wish, self._limits, now), now)
            except RedisError as error:
                self._lose(error, now)
                return self._alone.take(wish)
            self._remember(wish, found, now)
        return granted(found)

    def settle(self, permit: Permit, heard: Heard) -> None:
        """Tell how a call went. It raises nothing."""
        with self._lock:
            now = self._clock()
            try:
                self._changed(lambda ledger: ledger.settle(permit, heard, now), now)
            except RedisError as error:
                self._lose(error, now)
                self._alone.settle(permit, heard)

    def _changed(self, change: Callable[[Ledger], Result], now: float) -> Result:
        """Change the ledger as nobody else does meanwhile."""
        if now < self._away_until:
            raise RedisError("it did not answer a moment ago")
        with self._redis.pipeline() as pipe:
            for _ in range(TRIES_MAX):
                pipe.watch(self._key)  # type: ignore[no-untyped-call]  # redis-py says nothing of it
                ledger = self._opened(pipe.get(self._key), now)
                result = change(ledger)
                pipe.multi()
                pipe.set(self._key, written(ledger), ex=LEDGER_LIMIT_S)
                try:
                    pipe.execute()
                except WatchError:
                    continue
                self._seen = ledger
                return result
        raise RedisError(f"{TRIES_MAX} others were faster")

    def _opened(self, text: str | bytes | None, now: float) -> Ledger:
        try:
            ledger = read(text) if text is not None else Ledger(since=now)
        except ValueError as error:
            log.warning("ledger_unreadable", why=str(error))
            ledger = Ledger(since=now)
        if self._seen is not None and (ledger.since > self._seen.since or self._away_until > float("-inf")):
            ledger.found_again(self._seen)
        if self._away_until > float("-inf"):
            ledger.found_again(self._alone.ledger)
            self._away_until = float("-inf")
        return ledger

    def _lose(self, error: RedisError, now: float) -> None:
        if now < self._away_until:
            return
        log.warning("ledger_away", why=str(error))
        if self._away_until == float("-inf") and self._seen is not None:
            self._alone.begin_from(self._seen)
        self._away_until = now + REDIS_REST_S

    def _remember(self, wish: Wish, found: Permit | Wait, now: float) -> None:
        """Keep what somebody was told, so that asking again before that costs nothing."""
        if wish.name is None:
            return
        if isinstance(found, Wait):
            self._promised = {name: wait for name, wait in self._promised.items() if wait.until > now}
            self._promised[wish.name] = found
        else:
            self._promised.pop(wish.name, None)


def granted(found: Permit | Wait) -> Permit:
    """Return the permit, or raise `Throttled`."""
    if isinstance(found, Permit):
        return found
    at = datetime.fromtimestamp(found.until, UTC)
    raise Throttled(f"{found.why}; the next call is for {at:%H:%M:%S}", at=at)


def shared_pace(redis_url: str, key: str, limits: Limits, clock: Callable[[], float]) -> SharedPace:
    """Return the pace that is shared through this Redis, which need not be there yet."""
    url = redis_url.replace("redis+socket://", "unix://", 1)
    client = Redis.from_url(
        url, socket_timeout=REDIS_LIMIT_S, socket_connect_timeout=REDIS_LIMIT_S, retry=Retry(NoBackoff(), 0)
    )
    return SharedPace(client, key, limits, clock)
