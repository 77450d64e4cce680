"""The relay's API: what the control plane says is on disk and in the kernel before it is answered.

    PUT /v1/forwarding/<runner> ──▶ table (epochs) ──▶ kernel ──▶ disk ──▶ 204

The kernel forwards without us, so ending this process changes nothing for the guests; the next one starts from disk.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Protocol

from pydantic import TypeAdapter, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from workers.domain.errors import BadInput, Refused, Unfit
from workers.domain.names import RunnerId
from workers.domain.overlay import Station
from workers.listener import answer, make_app, read, read_epoch
from workers.ports import Forwarding
from workers.relay.forwarding import Table, forget, point, replace_all
from workers.relay.hub import Hub

ENTRY_LIMIT_BYTES: Final = 4 << 10
CERTIFICATE_LIMIT_BYTES: Final = 16 << 10
# A full guest network has 65,519 entries of about 200 bytes each.
TABLE_LIMIT_BYTES: Final = 16 << 20
# A full word is made of rows that were read some seconds ago, at most a client's time limit.
FRESH_LIMIT_S: Final = 30.0

_ONE: Final = TypeAdapter(Forwarding)
_ALL: Final = TypeAdapter(tuple[Forwarding, ...])
_STATIONS: Final = TypeAdapter(tuple[Station, ...])
_TEXT: Final = TypeAdapter(str)
_TABLE: Final = TypeAdapter(Table)


class Projection(Protocol):
    """Where a table takes effect."""

    def hold(self, entries: Iterable[Forwarding]) -> None:
        """Hold exactly these."""

    def change(self, before: Forwarding | None, after: Forwarding | None) -> None:
        """Replace one entry."""


class Credentials(Protocol):
    """The relay's own key, and what the control plane signs of it. Blocks for some milliseconds."""

    def request(self) -> str:
        """Return the request (PEM) for the next certificate."""

    def take(self, certificate: str) -> None:
        """Show this one (PEM) from now on. Raises `BadInput` if it is not our key's."""


class Forwarder:
    """The table with its effect and its copy on disk; keeps `ports.Relay`. One change at a time."""

    def __init__(self, projection: Projection, file: Path) -> None:
        """Forward at once what the file holds. Raises `Unfit` if it cannot be read as a table."""
        self._projection = projection
        self._file = file
        self._one_at_a_time = threading.Lock()
        self._pointed: dict[RunnerId, float] = {}
        self._table = _load(file)
        projection.hold(self._table.entries.values())

    @property
    def entries(self) -> tuple[Forwarding, ...]:
        """What is held."""
        return tuple(self._table.entries.values())

    def point(self, entry: Forwarding) -> None:
        with self._one_at_a_time:
            after = point(self._table, entry)
            self._pointed[entry.runner_id] = time.monotonic()
            self._project(after)
            # Said again it is done again: the caller may be repairing what somebody else broke.
            if after == self._table:
                self._projection.change(None, entry)
            self._keep(after)

    def forget(self, runner_id: RunnerId, epoch: int) -> None:
        with self._one_at_a_time:
            after = forget(self._table, runner_id, epoch)
            self._project(after)
            self._keep(after)

    def replace_all(self, entries: Iterable[Forwarding]) -> None:
        with self._one_at_a_time:
            after = replace_all(self._table, entries, self._fresh())
            self._projection.hold(after.entries.values())
            self._keep(after)

    def _fresh(self) -> set[RunnerId]:
        now = time.monotonic()
        self._pointed = {one: at for one, at in self._pointed.items() if now - at < FRESH_LIMIT_S}
        return set(self._pointed)

    def _project(self, after: Table) -> None:
        """Take effect where the two tables differ: what goes first, so that an address that changes hands is free."""
        before = self._table.entries
        for runner_id, entry in before.items():
            if runner_id not in after.entries:
                self._projection.change(entry, None)
        for runner_id, entry in after.entries.items():
            if before.get(runner_id) != entry:
                self._projection.change(before.get(runner_id), entry)

    def _keep(self, after: Table) -> None:
        changed, self._table = after != self._table, after
        if changed:
            _save(self._file, after)


def make_relay_app(forwarder: Forwarder, credentials: Credentials, hub: Hub | None = None) -> Starlette:
    """Return the relay's API, which only the control plane may call; `hub` is None without an overlay."""

    async def show(_: Request) -> Response:
        return answer(_ALL, forwarder.entries)

    async def hold(request: Request) -> Response:
        entries = await read(request, _ALL, TABLE_LIMIT_BYTES)
        await asyncio.to_thread(forwarder.replace_all, entries)
        return Response(status_code=204)

    async def set_one(request: Request) -> Response:
        entry = await read(request, _ONE, ENTRY_LIMIT_BYTES)
        if entry.runner_id != request.path_params["runner_id"]:
            raise BadInput(f"runner_id: the body speaks of {entry.runner_id}, the path of another")
        await asyncio.to_thread(forwarder.point, entry)
        return Response(status_code=204)

    async def drop(request: Request) -> Response:
        await asyncio.to_thread(forwarder.forget, RunnerId(request.path_params["runner_id"]), read_epoch(request))
        return Response(status_code=204)

    async def admit(request: Request) -> Response:
        if hub is None:
            raise Refused("this relay is no hub of an overlay; start it with SPOT_RUNNER_OVERLAY=wireguard")
        stations = await read(request, _STATIONS, TABLE_LIMIT_BYTES)
        return answer(_TEXT, await asyncio.to_thread(hub.admit, stations))

    async def request_certificate(_: Request) -> Response:
        return answer(_TEXT, await asyncio.to_thread(credentials.request))

    async def take_certificate(request: Request) -> Response:
        certificate = await read(request, _TEXT, CERTIFICATE_LIMIT_BYTES)
        await asyncio.to_thread(credentials.take, certificate)
        return Response(status_code=204)

    routes = [
        Route("/v1/certificate", request_certificate, methods=["GET"]),
        Route("/v1/certificate", take_certificate, methods=["PUT"]),
        Route("/v1/overlay", admit, methods=["PUT"]),
        Route("/v1/forwarding", show, methods=["GET"]),
        Route("/v1/forwarding", hold, methods=["PUT"]),
        Route("/v1/forwarding/{runner_id}", set_one, methods=["PUT"]),
        Route("/v1/forwarding/{runner_id}", drop, methods=["DELETE"]),
    ]
    return make_app(routes, caller="control")


def _load(file: Path) -> Table:
    try:
        return _TABLE.validate_json(file.read_bytes())
    except FileNotFoundError:
        return Table()
    except (OSError, ValidationError) as error:
        raise Unfit(
            f"{file} does not hold a forwarding table: {error}; remove it, the control plane sends another"
        ) from error


def _save(file: Path, table: Table) -> None:
    fresh = file.with_suffix(".fresh")
    with fresh.open("wb") as writing:
        writing.write(_TABLE.dump_json(table))
        writing.flush()
        os.fsync(writing.fileno())
    fresh.replace(file)
