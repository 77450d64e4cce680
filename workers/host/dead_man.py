"""The dead-man's switch: hears the control plane's answers, and carries out what `silence` says when there are none."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Callable, Collection
from datetime import timedelta
from typing import Final, NoReturn, Protocol

import structlog

from workers.domain.errors import SpotError
from workers.domain.host import POWERED_OFF
from workers.domain.messages import RunnerReport
from workers.domain.names import RunnerId
from workers.host.silence import PowerOff, steps

# What is due after a quarter of an hour may wait for some seconds more.
LOOK_INTERVAL_S: Final = 5.0
COMMAND_LIMIT_S: Final = 30.0

log: Final = structlog.get_logger()


class Engine(Protocol):
    """What the switch needs of the engine."""

    def reports(self) -> tuple[RunnerReport, ...]:
        """Tell of every microVM."""

    def moving(self) -> Collection[RunnerId]:
        """Return whose guests have a part in a migration here."""

    async def stop(self, runner_id: RunnerId, epoch: int) -> None:
        """End a microVM and wipe what it left. Raises `TryLater`."""


class DeadMan:
    """Counts the silence; `clock` gives seconds that only ever grow."""

    def __init__(
        self,
        engine: Engine,
        power_off: Callable[[], None],
        limit: timedelta,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine, self._power_off, self._limit, self._clock = engine, power_off, limit, clock
        self._heard_at = clock()

    def hear(self) -> None:
        """Note that the control plane has answered a heartbeat; a refusal is no answer."""
        self._heard_at = self._clock()

    async def watch(self, interval_s: float = LOOK_INTERVAL_S) -> None:
        """Look for ever."""
        while True:
            await asyncio.sleep(interval_s)
            await self.look()

    async def look(self) -> None:
        """Do what is due now."""
        silent_for = timedelta(seconds=self._clock() - self._heard_at)
        decided = steps(self._engine.reports(), self._engine.moving(), silent_for, self._limit)
        if isinstance(decided, PowerOff):
            log.warning("powering_off", silent_for_s=round(silent_for.total_seconds()))
            self._power_off()
            return
        for one in decided:
            log.warning("idle_runner_stopped", runner=one.runner_id, silent_for_s=round(silent_for.total_seconds()))
            try:
                await self._engine.stop(one.runner_id, one.epoch)
            except SpotError as error:
                log.info("idle_runner_not_stopped", runner=one.runner_id, because=str(error))


def power_off_machine() -> None:
    """Power this machine off; clouds terminate a spot instance that does so if it was rented like that."""
    try:
        subprocess.run(("systemctl", "poweroff"), check=True, timeout=COMMAND_LIMIT_S)
    except (OSError, subprocess.SubprocessError) as error:
        log.error("not_powered_off", because=str(error))  # noqa: TRY400 tried again at the next look


def power_off_daemon() -> NoReturn:
    """End this process with a status that says so: it stands for the machine."""
    raise SystemExit(POWERED_OFF)
