"""Relay over HTTPS: what the control plane tells the egress relay."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import httpx
from pydantic import TypeAdapter

from workers.domain.errors import Refused, Unreachable
from workers.domain.names import RunnerId
from workers.ports import Forwarding

NAME: Final = "relay"
# The relay only writes forwarding entries; whoever waits longer than this leaves a moved guest without its connections.
CONNECT_LIMIT_S: Final = 1.0
CALL_LIMIT_S: Final = 3.0

_ONE: Final = TypeAdapter(Forwarding)
_ALL: Final = TypeAdapter(tuple[Forwarding, ...])


class RelayClient:
    """ports.Relay with the control plane's certificate, which is read again whenever its file changes."""

    def __init__(self, url: str, certificate_dir: Path) -> None:
        self._url = url.rstrip("/")
        self._directory = certificate_dir
        self._lock = threading.Lock()
        self._stamp = 0
        self._client: httpx.Client | None = None
        self._former: httpx.Client | None = None

    def point(self, entry: Forwarding) -> None:
        self._call("PUT", f"/v1/forwarding/{entry.runner_id}", _ONE.dump_json(entry))

    def forget(self, runner_id: RunnerId, epoch: int) -> None:
        self._call("DELETE", f"/v1/forwarding/{runner_id}?epoch={epoch}")

    def replace_all(self, entries: Iterable[Forwarding]) -> None:
        self._call("PUT", "/v1/forwarding", _ALL.dump_json(tuple(entries)))

    def close(self) -> None:
        """Close every connection."""
        with self._lock:
            for client in (self._client, self._former):
                if client is not None:
                    client.close()
            self._client = self._former = None

    def _call(self, method: str, path: str, body: bytes | None = None) -> None:
        try:
            answer = self._fresh_client().request(
                method,
                self._url + path,
                content=body,
                headers={"Content-Type": "application/json"},
                timeout=httpx.Timeout(CALL_LIMIT_S, connect=CONNECT_LIMIT_S),
                extensions={"sni_hostname": NAME},
            )
        except httpx.HTTPError as error:
            raise Unreachable(f"the relay at {self._url}: {method} {path}: {error!r}") from error
        if answer.is_success:
            return
        sentence = f"the relay at {self._url} answered {answer.status_code} to {method} {path}: {answer.text[:300]}"
        raise Unreachable(sentence) if answer.is_server_error else Refused(sentence)

    def _fresh_client(self) -> httpx.Client:
        stamp = _stamp(self._directory)
        with self._lock:
            if self._client is None or stamp != self._stamp:
                if self._former is not None:
                    self._former.close()  # idle since the renewal before this one, hours ago
                self._former = self._client
                self._client = httpx.Client(verify=_context(self._directory), trust_env=False)
                self._stamp = stamp
            return self._client


def _stamp(directory: Path) -> int:
    try:
        return (directory / "certificate.pem").stat().st_mtime_ns
    except OSError as error:
        raise Unreachable(f"there is no certificate in {directory} yet: {error}") from error


def _context(directory: Path) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=directory / "control-ca.pem")
        context.load_cert_chain(directory / "certificate.pem", directory / "key.pem")
    except OSError as error:  # ssl.SSLError is one, too
        raise Unreachable(f"our own certificate in {directory} cannot be used now: {error}") from error
    return context
