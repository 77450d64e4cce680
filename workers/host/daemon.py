"""The daemon on each host: takes the control plane's orders and says every second how the host is.

    control plane ──orders──▶ app ──▶ engine           daemon ──heartbeats──▶ control plane
                                                            ◀──wanted packages──

It may end at any time: microVMs run on without it, and the next one adopts them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Protocol

import structlog
from pydantic import TypeAdapter
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from workers.domain.errors import BadInput, SpotError
from workers.domain.messages import BootOrder, Heartbeat, HeartbeatAnswer, MoveOrder, RunnerReport, StartOrder
from workers.domain.migration import Ports
from workers.domain.names import RunnerId
from workers.listener import answer, make_app, read, read_epoch

ORDER_LIMIT_BYTES: Final = 16 << 10
# A just-in-time configuration is about 5 kB.
START_LIMIT_BYTES: Final = 64 << 10

_BOOT: Final = TypeAdapter(BootOrder)
_START: Final = TypeAdapter(StartOrder)
_MOVE: Final = TypeAdapter(MoveOrder)
_PORTS: Final = TypeAdapter[Ports | None](Ports | None)
_HEARTBEAT: Final = TypeAdapter(Heartbeat)

_log: Final = structlog.get_logger()


class Engine(Protocol):
    """What runs microVMs here. Raises `Refused` for what never will be, `TryLater` for what cannot be now."""

    async def boot(self, order: BootOrder) -> Mapping[str, float]:
        """Restore a microVM; returns its stages in milliseconds when the guest's agent has answered."""

    async def start_runner(self, runner_id: RunnerId, order: StartOrder) -> None:
        """Hand over the just-in-time configuration."""

    async def stop(self, runner_id: RunnerId, epoch: int) -> None:
        """End a microVM and wipe what it left."""

    async def receive(self, order: MoveOrder) -> Ports | None:
        """Make ready to receive; None if the guest comes from the store."""

    async def send(self, order: MoveOrder) -> None:
        """Begin to send."""

    def reports(self) -> tuple[RunnerReport, ...]:
        """Tell of every microVM."""


def make_host_app(engine: Engine, status: Callable[[], Heartbeat]) -> Starlette:
    """Return the host API of docs/protocols.md, which only the control plane may call."""

    async def boot(request: Request) -> Response:
        order = await read(request, _BOOT, ORDER_LIMIT_BYTES)
        _same("runner_id", order.runner_id, request)
        return JSONResponse({"timings_ms": dict(await engine.boot(order))})

    async def start(request: Request) -> Response:
        order = await read(request, _START, START_LIMIT_BYTES)
        await engine.start_runner(RunnerId(request.path_params["runner_id"]), order)
        return Response(status_code=204)

    async def stop(request: Request) -> Response:
        await engine.stop(RunnerId(request.path_params["runner_id"]), read_epoch(request))
        return Response(status_code=204)

    async def receive(request: Request) -> Response:
        return answer(_PORTS, await engine.receive(await _move_order(request)))

    async def send(request: Request) -> Response:
        order = await _move_order(request)
        if order.ports is None and order.park is None:
            raise BadInput("ports: missing; the source must be told where the target listens")
        await engine.send(order)
        return Response(status_code=202)

    async def show(_: Request) -> Response:
        return answer(_HEARTBEAT, status())

    routes = [
        Route("/v1/runners/{runner_id}", boot, methods=["PUT"]),
        Route("/v1/runners/{runner_id}", stop, methods=["DELETE"]),
        Route("/v1/runners/{runner_id}/start", start, methods=["POST"]),
        Route("/v1/migrations/{migration_id}/receive", receive, methods=["PUT"]),
        Route("/v1/migrations/{migration_id}/send", send, methods=["PUT"]),
        Route("/v1/status", show, methods=["GET"]),
    ]
    return make_app(routes, caller="control")


async def keep_beating(
    beat: Callable[[Heartbeat], Awaitable[HeartbeatAnswer]],
    status: Callable[[], Heartbeat],
    hear: Callable[[HeartbeatAnswer], Awaitable[None]],
    interval_s: float,
) -> None:
    """Say how the host is and hear what is wanted of it, for ever; a beat that fails is followed by the next one."""
    was_heard = True
    while True:
        try:
            await hear(await beat(status()))
            was_heard = True
        except SpotError as error:
            if was_heard:
                _log.warning("heartbeat_failed", error=str(error))
            was_heard = False
        await asyncio.sleep(interval_s)


async def _move_order(request: Request) -> MoveOrder:
    order = await read(request, _MOVE, ORDER_LIMIT_BYTES)
    _same("migration_id", order.migration_id, request)
    return order


def _same(name: str, said: str, request: Request) -> None:
    if said != request.path_params[name]:
        raise BadInput(f"{name}: the body speaks of {said}, the path of another")
