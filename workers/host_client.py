"""HostApi over HTTPS: what the control plane asks of a host's daemon.

A host is checked by its *name*: whatever address was dialled, the certificate there must be the host's own. Since a
connection is checked only when it is made, and addresses are used again, every host has connections of its own.
"""

from __future__ import annotations

import ssl
import threading
from pathlib import Path
from typing import Final

import httpx
from pydantic import TypeAdapter, ValidationError

from workers.domain.errors import Refused, SpotError, TryLater, Unreachable
from workers.domain.host import Host
from workers.domain.messages import BootOrder, MoveOrder, StartOrder
from workers.domain.migration import Ports
from workers.domain.names import HostId, RunnerId

PORT: Final = 8444

# A dead host does not answer at all, and a live one in the same network answers within milliseconds.
CONNECT_LIMIT_S: Final = 2.0
# The caller holds a lease of ten seconds, so every call ends before it does. All of them are harmless when repeated:
# a restore that takes longer goes on at the host and is found ready by the next call.
BOOT_LIMIT_S: Final = 8.0
START_LIMIT_S: Final = 5.0
STOP_LIMIT_S: Final = 8.0
RECEIVE_LIMIT_S: Final = 8.0
# The host only takes the order and answers.
SEND_LIMIT_S: Final = 3.0

_BOOT: Final = TypeAdapter(BootOrder)
_START: Final = TypeAdapter(StartOrder)
_MOVE: Final = TypeAdapter(MoveOrder)
_PORTS: Final = TypeAdapter(Ports)


class HostClient:
    """ports.HostApi with the control plane's certificate, which is read again whenever its file changes."""

    def __init__(self, certificate_dir: Path, port: int = PORT) -> None:
        self._directory = certificate_dir
        self._port = port
        self._lock = threading.Lock()
        self._stamp = 0
        self._context: ssl.SSLContext | None = None
        self._pools: dict[HostId, httpx.Client] = {}
        self._former: list[httpx.Client] = []

    def boot(self, host: Host, order: BootOrder) -> None:
        self._call(host, "PUT", f"/v1/runners/{order.runner_id}", BOOT_LIMIT_S, _BOOT.dump_json(order))

    def start_runner(self, host: Host, runner_id: RunnerId, epoch: int, jit_config: str) -> None:
        order = StartOrder(epoch=epoch, jit_config=jit_config)
        self._call(host, "POST", f"/v1/runners/{runner_id}/start", START_LIMIT_S, _START.dump_json(order))

    def stop(self, host: Host, runner_id: RunnerId, epoch: int) -> None:
        self._call(host, "DELETE", f"/v1/runners/{runner_id}?epoch={epoch}", STOP_LIMIT_S)

    def receive(self, host: Host, order: MoveOrder) -> Ports:
        answer = self._call(
            host, "PUT", f"/v1/migrations/{order.migration_id}/receive", RECEIVE_LIMIT_S, _MOVE.dump_json(order)
        )
        try:
            return _PORTS.validate_json(answer.content)
        except ValidationError as error:
            raise Refused(f"{host.id} answered something else than ports: {error}") from error

    def send(self, host: Host, order: MoveOrder) -> None:
        self._call(host, "PUT", f"/v1/migrations/{order.migration_id}/send", SEND_LIMIT_S, _MOVE.dump_json(order))

    def close(self) -> None:
        """Close every connection."""
        with self._lock:
            for pool in (*self._pools.values(), *self._former):
                pool.close()
            self._pools, self._former = {}, []

    def _call(self, host: Host, method: str, path: str, limit_s: float, body: bytes | None = None) -> httpx.Response:
        if host.address is None:
            raise Unreachable(f"{host.id} has no address yet")
        try:
            answer = self._pool(host.id).request(
                method,
                f"https://{host.address}:{self._port}{path}",
                content=body,
                headers={"Content-Type": "application/json"},
                timeout=httpx.Timeout(limit_s, connect=CONNECT_LIMIT_S),
                extensions={"sni_hostname": host.id},
            )
        except httpx.HTTPError as error:
            raise Unreachable(f"{host.id} at {host.address}: {method} {path}: {error!r}") from error
        if answer.is_success:
            return answer
        raise _error(answer, host.id)

    def _pool(self, host_id: HostId) -> httpx.Client:
        with self._lock:
            context = self._fresh_context()
            if host_id not in self._pools:
                self._pools[host_id] = httpx.Client(verify=context, trust_env=False)
            return self._pools[host_id]

    def _fresh_context(self) -> ssl.SSLContext:
        stamp = _stamp(self._directory)
        if self._context is None or stamp != self._stamp:
            for pool in self._former:
                pool.close()  # idle since the renewal before this one, hours ago
            self._former, self._pools = list(self._pools.values()), {}
            self._context, self._stamp = _context(self._directory), stamp
        return self._context


def _stamp(directory: Path) -> int:
    try:
        return (directory / "certificate.pem").stat().st_mtime_ns
    except OSError as error:
        raise Unreachable(f"there is no certificate in {directory} yet: {error}") from error


def _context(directory: Path) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=directory / "hosts-ca.pem")
        context.load_cert_chain(directory / "certificate.pem", directory / "key.pem")
    except OSError as error:  # ssl.SSLError is one, too
        raise Unreachable(f"our own certificate in {directory} cannot be used now: {error}") from error
    return context


def _error(answer: httpx.Response, host_id: HostId) -> SpotError:
    sentence = f"{host_id} answered {answer.status_code}: {answer.text[:300]}"
    if answer.status_code == httpx.codes.CONFLICT:
        return TryLater(sentence)
    return Unreachable(sentence) if answer.is_server_error else Refused(sentence)
