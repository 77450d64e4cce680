"""Guests that are only records: each takes its configuration, takes one job, "works" for a while, and ends.

    waiting ──configuration──▶ online ──offered, taken──▶ working until a moment ──conclusion──▶ ended

A record is a file that outlives the process, as a microVM outlives its host's daemon: whoever is started again adopts
the guests and goes on where they are. What is drawn for a job follows from its number alone.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import httpx
import structlog
from pydantic import TypeAdapter

from rehearsal_runner.configuration import decoded
from workers.domain.messages import BootOrder, GuestRunnerState, MonitorState, RunnerReport

ASK_AGAIN_S: Final = 1.0
# So that a lock that is short in a rehearsal is renewed in time.
RENEWAL_S: Final = 20.0
FAILURES: Final = 0.08
GONE: Final = frozenset({httpx.codes.NOT_FOUND, httpx.codes.CONFLICT, httpx.codes.GONE, httpx.codes.UNAUTHORIZED})

_log: Final = structlog.get_logger()


@dataclass(frozen=True)
class Record:
    """All that is known of one microVM."""

    order: BootOrder
    server: str | None = None
    secret: str | None = None
    job_id: int | None = None
    ends_at: float | None = None
    """Unix time."""
    exit_code: int | None = None


RECORD: Final = TypeAdapter(Record)


@dataclass(frozen=True)
class Pace:
    """How long jobs work, in seconds."""

    shortest_s: float
    longest_s: float

    def of(self, job_id: int) -> float:
        """Return how long this job works."""
        return random.Random(job_id).uniform(self.shortest_s, self.longest_s)


def conclusion_of(job_id: int) -> str:
    """Return how this job ends if nobody cancels it."""
    return "failure" if random.Random(f"end of {job_id}").random() < FAILURES else "success"


class Ended(Exception):
    """GitHub does not know this runner, or this job of its, any more."""


class Guest:
    """One microVM with its runner."""

    def __init__(self, file: Path, record: Record, client: httpx.AsyncClient, pace: Pace) -> None:
        self._file, self.record, self._client, self._pace = file, record, client, pace
        self._task: asyncio.Task[None] | None = None

    @property
    def report(self) -> RunnerReport:
        """What its host says of it."""
        record = self.record
        state = GuestRunnerState.WAITING if record.secret is None else GuestRunnerState.RUNNING
        if record.exit_code is not None:
            state = GuestRunnerState.ENDED
        return RunnerReport(
            record.order.runner_id, record.order.epoch, MonitorState.RUNNING, state, exit_code=record.exit_code
        )

    def write(self, record: Record) -> None:
        """Let this be the record from now on."""
        self.record = record
        fresh = self._file.with_suffix(".new")
        fresh.write_bytes(RECORD.dump_json(record))
        fresh.replace(self._file)

    def start(self, jit_config: str) -> None:
        """Take the configuration; twice starts one runner."""
        if self.record.secret is None:
            found = decoded(jit_config)
            self.write(replace(self.record, server=found.server_url, secret=found.secret))
            self.go_on()

    def go_on(self) -> None:
        """Run from where the record stands."""
        if self.record.secret is not None and self.record.exit_code is None:
            self._task = asyncio.ensure_future(self._run())

    async def wipe(self) -> None:
        """Leave nothing."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._file.unlink(missing_ok=True)

    async def _run(self) -> None:
        exit_code = 0
        try:
            if self.record.job_id is None:
                await self._take()
            await self._work()
        except Ended:
            exit_code = 1
        except Exception:  # noqa: BLE001  # whatever it is, its host must hear that it ended
            _log.exception("guest_failed", runner=self.record.order.runner_id)
            exit_code = 2
        self.write(replace(self.record, exit_code=exit_code))

    async def _take(self) -> None:
        """Wait for a job that fits, whichever GitHub gives."""
        session = self.record.order.runner_id
        await self._ask("PUT", f"/sessions/{session}", {})
        job_id = await self._offered(f"/sessions/{session}/offer?wait=0")
        await self._ask("POST", f"/jobs/{job_id}/acquire", {})
        self.write(replace(self.record, job_id=job_id, ends_at=time.time() + self._pace.of(job_id)))

    async def _offered(self, path: str) -> int:
        """Ask again and again rather than long, or hundreds of guests would hold a thread of the simulator each."""
        while True:
            if offered := await self._ask("GET", path):
                return int(offered["job_id"])
            await asyncio.sleep(ASK_AGAIN_S)

    async def _work(self) -> None:
        job_id, ends_at = self.record.job_id or 0, self.record.ends_at or 0.0
        while (left_s := ends_at - time.time()) > 0:
            await asyncio.sleep(min(left_s, RENEWAL_S))
            if left_s > RENEWAL_S:
                await self._ask("POST", f"/jobs/{job_id}/renew", {})
        await self._ask("POST", f"/jobs/{job_id}/finish", {"conclusion": conclusion_of(job_id)})

    async def _ask(self, verb: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Ask until there is an answer. Raises `Ended`."""
        while True:
            # httpcore 1.0 loses the place of a connection whose request is cancelled before it was made, and all guests
            # share the pool: so a guest that is wiped lets its last request end.
            answer = await asyncio.shield(self._once(verb, path, body))
            if answer is not None and answer.status_code in GONE:
                raise Ended(answer.text)
            if answer is not None and answer.is_success:
                found: dict[str, Any] = answer.json() if answer.content else {}
                return found
            await asyncio.sleep(ASK_AGAIN_S)

    async def _once(self, verb: str, path: str, body: dict[str, Any] | None) -> httpx.Response | None:
        headers = {"Authorization": f"Bearer {self.record.secret}"}
        try:
            return await self._client.request(verb, f"{self.record.server}/_runner{path}", json=body, headers=headers)
        except httpx.HTTPError:
            return None


class Guests:
    """The microVMs of one host."""

    def __init__(self, directory: Path, client: httpx.AsyncClient, pace: Pace) -> None:
        self._directory, self._client, self._pace = directory, client, pace
        self.here: dict[str, Guest] = {}

    def adopt(self) -> None:
        """Go on with every microVM that an earlier process has left."""
        self._directory.mkdir(parents=True, exist_ok=True)
        for file in sorted(self._directory.glob("*.json")):
            guest = self._guest(RECORD.validate_json(file.read_bytes()))
            guest.go_on()

    def boot(self, order: BootOrder) -> None:
        """Begin one."""
        guest = self._guest(Record(order))
        guest.write(guest.record)

    async def stop(self, runner_id: str) -> None:
        """End one, if it is here."""
        if guest := self.here.pop(runner_id, None):
            await guest.wipe()

    def _guest(self, record: Record) -> Guest:
        guest = Guest(self._directory / f"{record.order.runner_id}.json", record, self._client, self._pace)
        self.here[record.order.runner_id] = guest
        return guest
