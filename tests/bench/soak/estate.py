"""`python -m tests.bench.soak.estate FILE`: a spot market and all the hosts that it has rented out, in one process.

Every machine is a directory, so that the process may be killed and started again: machines, certificates and microVMs
are found where they were.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import uvicorn
from pydantic import TypeAdapter
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.bench.soak.hosts import HostPace, PlayedHost
from workers.domain.names import HostId
from workers.domain.user_data import read_cloud_config
from workers.ports import Instance, InstanceState
from workers.telemetry import start_logging

CONNECTIONS_MAX: Final = 64
ANSWER_LIMIT_S: Final = 30.0
NOT_FOUND: Final = 404


@dataclass(frozen=True)
class EstateFile:
    """What the process is told."""

    directory: Path
    port: int
    network: str
    """The first three numbers of the machines' addresses, on the loopback interface."""
    pace: HostPace


@dataclass(frozen=True)
class Deed:
    """One machine that was rented."""

    host_id: HostId
    address: str
    told: dict[str, str]
    is_ended: bool = False


ESTATE: Final = TypeAdapter(EstateFile)
DEED: Final = TypeAdapter(Deed)
INSTANCE: Final = TypeAdapter(Instance)


class Estate:
    """The market and its machines."""

    def __init__(self, told: EstateFile, client: httpx.AsyncClient) -> None:
        self._told, self._client = told, client
        self._deeds: dict[str, Deed] = {}
        self._running: dict[str, asyncio.Task[None]] = {}

    def adopt(self) -> None:
        """Let every machine run that an earlier process has rented out."""
        self._told.directory.mkdir(parents=True, exist_ok=True)
        for file in sorted(self._told.directory.glob("*/deed.json")):
            self._enter(DEED.validate_json(file.read_bytes()))

    def app(self) -> Starlette:
        """Return the market of docs/protocols.md."""
        return Starlette(
            routes=[
                Route("/instances", self.listed, methods=["GET"]),
                Route("/instances/{name}", self.shown, methods=["GET"]),
                Route("/instances/{name}", self.launch, methods=["PUT"]),
                Route("/instances/{name}", self.end, methods=["DELETE"]),
                Route("/microvms", self.microvms, methods=["GET"]),
            ]
        )

    async def listed(self, _: Request) -> Response:
        return JSONResponse([seen(deed) for deed in self._deeds.values() if not deed.is_ended])

    async def shown(self, request: Request) -> Response:
        deed = self._deeds.get(request.path_params["name"])
        return Response(status_code=NOT_FOUND) if deed is None else JSONResponse(seen(deed))

    async def launch(self, request: Request) -> Response:
        name = HostId(request.path_params["name"])
        told = json.loads(read_cloud_config((await request.json())["user_data"]))
        if name not in self._deeds:
            self._keep(Deed(name, f"{self._told.network}.{len(self._deeds) + 1}", told))
        return JSONResponse(seen(self._deeds[name]))

    async def end(self, request: Request) -> Response:
        deed = self._deeds.get(request.path_params["name"])
        if deed is not None and not deed.is_ended:
            self._keep(Deed(deed.host_id, deed.address, deed.told, is_ended=True))
        return Response(status_code=204)

    async def microvms(self, _: Request) -> Response:
        """Name every microVM of every machine that has not ended."""
        living = [deed.host_id for deed in self._deeds.values() if not deed.is_ended]
        found = [file.stem for name in living for file in (self._told.directory / name / "microvms").glob("*.json")]
        return JSONResponse(sorted(found))

    def _keep(self, deed: Deed) -> None:
        directory = self._told.directory / deed.host_id
        directory.mkdir(exist_ok=True)
        fresh = directory / "deed.new"
        fresh.write_bytes(DEED.dump_json(deed))
        fresh.replace(directory / "deed.json")
        self._enter(deed)

    def _enter(self, deed: Deed) -> None:
        self._deeds[deed.host_id] = deed
        if deed.is_ended:
            if task := self._running.pop(deed.host_id, None):
                task.cancel()
            return
        directory = self._told.directory / deed.host_id
        host = PlayedHost(directory, deed.host_id, deed.address, deed.told, self._told.pace)
        self._running[deed.host_id] = asyncio.ensure_future(host.run(self._client))


def seen(deed: Deed) -> dict[str, Any]:
    """Return what the cloud says of a machine."""
    state = InstanceState.TERMINATED if deed.is_ended else InstanceState.RUNNING
    return asdict(Instance(f"i-{deed.host_id}", deed.host_id, state))


async def run(told: EstateFile) -> None:
    """Rent out until told to end."""
    limits = httpx.Limits(max_connections=CONNECTIONS_MAX, max_keepalive_connections=CONNECTIONS_MAX)
    async with httpx.AsyncClient(trust_env=False, limits=limits, timeout=ANSWER_LIMIT_S) as client:
        estate = Estate(told, client)
        estate.adopt()
        config = uvicorn.Config(
            estate.app(), "127.0.0.1", told.port, log_config=None, access_log=False, lifespan="off", ws="none"
        )
        await uvicorn.Server(config).serve()


def main() -> None:
    start_logging("estate")
    told = ESTATE.validate_python(json.loads(Path(sys.argv[1]).read_text()))
    asyncio.run(run(told))


if __name__ == "__main__":
    main()
