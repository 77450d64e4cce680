"""HTTPS for the control plane as a caller: its certificate, and the server's name whatever address was dialled.

    name ─▶ its own kept-alive connections ─▶ answer, or an error that says what to do

A connection is checked only when it is made, and addresses are used again, so every name has connections of its own.
Our certificate renews itself: when its file changes, the next call makes new connections with it.
"""

from __future__ import annotations

import ssl
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from workers.domain.errors import Refused, SpotError, TryLater, Unreachable

# A little less than the servers keep an idle connection: a handshake costs more than the call that needs it.
LIMITS: Final = httpx.Limits(keepalive_expiry=50.0)


@dataclass(frozen=True)
class Call:
    """One request."""

    method: str
    url: str
    limit_s: float
    """For each of sending, waiting and reading."""
    connect_limit_s: float
    body: bytes | None = None


class Caller:
    """Safe for threads. `issuer` is the file in `directory` whose issuer vouches for the servers."""

    def __init__(self, directory: Path, issuer: str) -> None:
        self._directory, self._issuer = directory, issuer
        self._lock = threading.Lock()
        self._stamp = 0
        self._context: ssl.SSLContext | None = None
        self._pools: dict[str, httpx.Client] = {}
        self._former: list[httpx.Client] = []

    def ask(self, name: str, call: Call) -> httpx.Response:
        """Return a success. Raises `Unreachable`, `TryLater` (409) or `Refused`, with the server's sentence."""
        try:
            answer = self._pool(name).request(
                call.method,
                call.url,
                content=call.body,
                headers={"Content-Type": "application/json"},
                timeout=httpx.Timeout(call.limit_s, connect=call.connect_limit_s),
                extensions={"sni_hostname": name},
            )
        except httpx.HTTPError as error:
            raise Unreachable(f"{name}: {call.method} {without_query(call.url)}: {error!r}") from error
        if answer.is_success:
            return answer
        called = f"{call.method} {without_query(call.url)}"
        raise _error(f"{name} answered {answer.status_code} to {called}: {answer.text[:300]}", answer)

    def close(self) -> None:
        """Close every connection."""
        with self._lock:
            for pool in (*self._pools.values(), *self._former):
                pool.close()
            self._pools, self._former = {}, []

    def _pool(self, name: str) -> httpx.Client:
        with self._lock:
            context = self._fresh_context()
            if name not in self._pools:
                self._pools[name] = httpx.Client(verify=context, trust_env=False, limits=LIMITS)
            return self._pools[name]

    def _fresh_context(self) -> ssl.SSLContext:
        stamp = self._certificate_stamp()
        if self._context is None or stamp != self._stamp:
            for pool in self._former:
                pool.close()  # idle since the renewal before this one, hours ago
            self._former, self._pools = list(self._pools.values()), {}
            self._context, self._stamp = self._load(), stamp
        return self._context

    def _certificate_stamp(self) -> int:
        try:
            return (self._directory / "certificate.pem").stat().st_mtime_ns
        except OSError as error:
            raise Unreachable(f"there is no certificate in {self._directory} yet: {error}") from error

    def _load(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self._directory / self._issuer)
            context.load_cert_chain(self._directory / "certificate.pem", self._directory / "key.pem")
        except OSError as error:  # ssl.SSLError is one, too
            raise Unreachable(f"our own certificate in {self._directory} cannot be used now: {error}") from error
        return context


def without_query(url: str) -> str:
    """Return what may be said of a URL: what follows the question mark is as good as a credential."""
    return url.partition("?")[0]


def _error(sentence: str, answer: httpx.Response) -> SpotError:
    if answer.status_code == httpx.codes.CONFLICT:
        return TryLater(sentence)
    return Unreachable(sentence) if answer.is_server_error else Refused(sentence)
