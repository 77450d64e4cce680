"""Who may register: the machine that a token was made for; whoever else tries stands in its host's timeline."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from typing import Any, Final

import structlog

from webhook.needs import Clock, Hints, HostStore
from workers.domain.errors import Refused, TryLater
from workers.domain.events import Event, Happening
from workers.domain.host import Host
from workers.domain.messages import RegistrationRequest
from workers.domain.names import HostId
from workers.domain.registration import elsewhere, is_elsewhere, token_refusal

log: Final = structlog.get_logger(__name__)

# A cloud may tell a machine's public address some seconds after it runs; the worker is asked to look meanwhile.
ADDRESS_LIMIT: Final = timedelta(seconds=20)
# Of one host: whoever has its token and comes from ever other addresses fills no timeline.
REPORTED_MAX: Final = 10
# More hosts than are awaited at one time; the one that was longest not heard of is forgotten, and no memory is filled.
REMEMBERED_MAX: Final = 1000


class Gate:
    """Admits machines to their first certificate."""

    def __init__(self, store: HostStore, hints: Hints, clock: Clock, nats: tuple[str, ...] = ()) -> None:
        """`nats`: networks behind whose addresses machines without a public one are seen."""
        self._store, self._hints, self._clock, self._nats = store, hints, clock, nats
        self._elsewhere_since: dict[tuple[HostId, str | None], datetime] = {}
        self._reported: dict[HostId, frozenset[str]] = {}
        self._lock = threading.Lock()

    def admitted(self, request: RegistrationRequest, source: str | None) -> Host:
        """Return the host that this machine may become. Raises `Refused` with the reason, `TryLater` while in doubt."""
        now = self._clock.now()
        host, token = self._store.hosts.get(request.host_id), self._store.token(request.token)
        because = token_refusal(request.host_id, host, token, now)
        if because is not None or host is None:
            raise self._refusal(request, token.host_id if token else None, source, because or "it is not known here")
        if is_elsewhere(source, host, self._nats):
            if now - self._elsewhere_at_first(host.id, source, now) < ADDRESS_LIMIT:
                self._hints.look_at("host", host.id)
                raise TryLater(f"{host.id}: {elsewhere(source, host)}; the cloud is asked once more")
            raise self._refusal(request, host.id, source, elsewhere(source, host))
        return host

    def refused(self, request: RegistrationRequest, source: str | None) -> Refused:
        """Return the refusal of a machine whose token was good a moment ago."""
        token, now = self._store.token(request.token), self._clock.now()
        because = token_refusal(request.host_id, self._store.hosts.get(request.host_id), token, now)
        return self._refusal(request, token.host_id if token else None, source, because or "somebody else was quicker")

    def _refusal(self, request: RegistrationRequest, owner: HostId | None, source: str | None, because: str) -> Refused:
        """Tell whose token it is that somebody has tried to use; a token that nobody has says nothing of anybody."""
        log.warning("registration_refused", host=request.host_id, source=source, because=because)
        if owner is not None and self._is_fresh(owner, because):
            detail = {"because": because, "address": source}
            self._store.record(Event(Happening.REGISTRATION_REFUSED, self._clock.now(), host_id=owner, detail=detail))
            self._note(owner, because)  # only now: a store that is away is told when it is there again
        return Refused(f"{request.host_id} cannot register: {because}")

    def _elsewhere_at_first(self, host_id: HostId, source: str | None, now: datetime) -> datetime:
        """Return when this machine was first seen at that address."""
        with self._lock:
            since = self._elsewhere_since.setdefault((host_id, source), now)
            _forget_oldest(self._elsewhere_since)
        return since

    def _is_fresh(self, owner: HostId, because: str) -> bool:
        """Say whether this is to be told; the host has been heard of, so others are forgotten before it."""
        with self._lock:
            told = self._reported[owner] = self._reported.pop(owner, frozenset())
            _forget_oldest(self._reported)
        return because not in told and len(told) < REPORTED_MAX

    def _note(self, owner: HostId, because: str) -> None:
        with self._lock:
            self._reported[owner] = self._reported.get(owner, frozenset()) | {because}
            _forget_oldest(self._reported)


def _forget_oldest(seen: dict[Any, Any]) -> None:
    while len(seen) > REMEMBERED_MAX:
        del seen[next(iter(seen))]
