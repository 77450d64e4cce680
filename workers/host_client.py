"""HostApi over HTTPS: what the control plane asks of a host's daemon.

A host is checked by its *name*: whatever address was dialled, the certificate there must be the host's own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import httpx
from pydantic import TypeAdapter, ValidationError

from workers.caller import Call, Caller
from workers.domain.errors import Refused, Unreachable
from workers.domain.host import Host
from workers.domain.messages import BootOrder, MoveOrder, StartOrder
from workers.domain.migration import Ports
from workers.domain.names import RunnerId

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
_PORTS: Final = TypeAdapter[Ports | None](Ports | None)


class HostClient:
    """ports.HostApi with the control plane's certificate, which is read again whenever its file changes."""

    def __init__(self, certificate_dir: Path, port: int = PORT) -> None:
        self._caller, self._port = Caller(certificate_dir, "hosts-ca.pem"), port

    def boot(self, host: Host, order: BootOrder) -> None:
        self._call(host, "PUT", f"/v1/runners/{order.runner_id}", BOOT_LIMIT_S, _BOOT.dump_json(order))

    def start_runner(self, host: Host, runner_id: RunnerId, epoch: int, jit_config: str) -> None:
        order = StartOrder(epoch=epoch, jit_config=jit_config)
        self._call(host, "POST", f"/v1/runners/{runner_id}/start", START_LIMIT_S, _START.dump_json(order))

    def stop(self, host: Host, runner_id: RunnerId, epoch: int) -> None:
        self._call(host, "DELETE", f"/v1/runners/{runner_id}?epoch={epoch}", STOP_LIMIT_S)

    def receive(self, host: Host, order: MoveOrder) -> Ports | None:
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
        self._caller.close()

    def _call(self, host: Host, method: str, path: str, limit_s: float, body: bytes | None = None) -> httpx.Response:
        if host.address is None:
            raise Unreachable(f"{host.id} has no address yet")
        url = f"https://{host.address}:{self._port}{path}"
        return self._caller.ask(host.id, Call(method, url, limit_s, CONNECT_LIMIT_S, body))
