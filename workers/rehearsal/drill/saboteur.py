"""What else goes wrong while a host is taken away: real kills, real cuts, and what mends them."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from workers.domain.errors import Unreachable
from workers.domain.host import HostState
from workers.domain.migration import Migration, MigrationPhase
from workers.domain.names import HostId
from workers.rehearsal import places as at
from workers.rehearsal.commands import run
from workers.rehearsal.drill.wires import Wires
from workers.rehearsal.stage import Stage

# Long enough for every time limit of the protocol to pass, short enough for a notice of 20 s.
CUT_S: Final = 3.0
REDIS_GONE_S: Final = 20.0
STORE_LOCKED_S: Final = 3.0
RESTART_S: Final = 1.0
# A word that waits for the store is written down at once when it is free again.
COMMIT_LIMIT_S: Final = 2.0
LOOK_INTERVAL_S: Final = 0.01
# As far as from one side of the earth to the other.
FAR_S: Final = 0.3
FILLER: Final = "filler"
FILLER_STEP: Final = 1 << 20


class Escaped(Unreachable):
    """The fault cannot be planted: the move is over the phase, or a park, which has no target."""


@dataclass
class Saboteur:
    """Plants faults on one stage, and mends what has lasted long enough."""

    stage: Stage
    _repairs: list[tuple[float, Callable[[], object]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.wires = Wires(self.stage.places, self.stage.journal)
        self._never = threading.Event()
        """Never set: what is waited for is seen by looking."""

    def mend_due(self, *, everything: bool = False) -> None:
        """Mend what is due, or all of it."""
        now = time.monotonic()
        due = [one for one in self._repairs if everything or one[0] <= now]
        self._repairs = [one for one in self._repairs if one not in due]
        for _, repair in due:
            repair()

    def _later(self, seconds: float, repair: Callable[[], object]) -> None:
        self._repairs.append((time.monotonic() + seconds, repair))

    # ------------------------------------------------------------ programs

    def kill_source_daemon(self, row: Migration) -> None:
        """The daemon of the host that is taken away dies and is started again."""
        self.stage.crash_daemon(_known(row.source_id))

    def kill_target_daemon(self, row: Migration) -> None:
        """The daemon of the target dies and is started again."""
        self.stage.crash_daemon(_known(row.target_id))

    def end_source(self, row: Migration) -> None:
        """The host is gone before its deadline."""
        self.stage.take_away(_known(row.source_id), 0)

    def end_target(self, row: Migration) -> None:
        """The target is gone without a notice."""
        self.stage.take_away(_known(row.target_id), 0)

    def kill_control_plane(self, _row: Migration) -> None:
        """Receiver and workers die and are started again."""
        for name in ("serve", "worker"):
            self._restart(name)

    def flush_redis(self, _row: Migration) -> None:
        """Redis forgets everything."""
        run("redis-cli", "-s", str(self.stage.places.run / "redis.sock"), "flushall")

    def stop_redis(self, _row: Migration) -> None:
        """Redis is gone for twenty seconds."""
        self._restart("redis", REDIS_GONE_S)

    def stop_redis_first(self, _host: HostId, _notice_s: float) -> None:
        """Redis is stopped just before the notice, and gone for twenty seconds."""
        self._restart("redis", REDIS_GONE_S)

    def kill_target_monitor(self, row: Migration) -> None:
        """The target's QEMU dies."""
        os.kill(self._monitor(row), signal.SIGKILL)

    def stop_target_monitor(self, row: Migration) -> None:
        """The target's QEMU does not move for a while."""
        pid = self._monitor(row)
        os.kill(pid, signal.SIGSTOP)
        self._later(CUT_S, partial(_continue, pid))

    def _monitor(self, row: Migration) -> int:
        """Return the target's QEMU. Raises `Escaped` if there is none any more."""
        copies = self.stage.kit.look_at_copies().get(row.runner_id, {})
        for host, pid in copies:
            if host == row.target_id:
                return pid
        raise Escaped(f"{row.id} has no guest at its target")

    def restart_relay(self, _row: Migration) -> None:
        """The relay's program dies and is started again."""
        self._restart("relay")

    def _restart(self, name: str, after_s: float = RESTART_S) -> None:
        ended = self.stage.processes.kill(name)
        self._later(after_s, partial(self.stage.processes.again, ended))

    # ------------------------------------------------------------ wires

    def cut_hosts(self, row: Migration) -> None:
        """Source and target do not hear each other: nothing comes, nothing is refused."""
        self._cut(_known(row.source_id), self._address(row.target_id))

    def reset_hosts(self, row: Migration) -> None:
        """Every connection from the source to the target is refused."""
        self._cut(_known(row.target_id), self._address(row.source_id), "meta l4proto tcp reject with tcp reset")

    def cut_source_from_control(self, row: Migration) -> None:
        """The source does not hear the control plane."""
        self._cut(_known(row.source_id), str(at.CONTROL_UNDERLAY))

    def cut_target_from_control(self, row: Migration) -> None:
        """The target does not hear the control plane."""
        self._cut(_known(row.target_id), str(at.CONTROL_UNDERLAY))

    def cut_relay(self, _row: Migration) -> None:
        """The relay does not hear the control plane."""
        self._cut("relay", str(at.CONTROL_UNDERLAY))

    def slow_source(self, row: Migration) -> None:
        """The source has a line of 5 Mbit/s."""
        self._later(CUT_S, self.wires.slow(_known(row.source_id)))

    def part_hosts(self, host: HostId, notice_s: float) -> None:
        """What other hosts send to this one comes 300 ms late."""
        for other in self._others(host):
            self._later(notice_s, self.wires.part(other, self._address(other), self._address(host), FAR_S))

    def part_control(self, host: HostId, notice_s: float) -> None:
        """What any host sends to the control plane comes 300 ms late."""
        for one in (host, *self._others(host)):
            self._later(notice_s, self.wires.part(one, self._address(one), str(at.CONTROL_UNDERLAY), FAR_S))

    def _cut(self, role: str, address: str, verdict: str = "drop") -> None:
        self._later(CUT_S, self.wires.cut(role, address, verdict))

    def _others(self, host: HostId) -> list[HostId]:
        """Return every other host that can take guests."""
        return [one.id for one in self.stage.store.hosts.open() if one.id != host and one.state is HostState.READY]

    def _address(self, host_id: HostId | None) -> str:
        host = self.stage.store.hosts.get(_known(host_id))
        if host is None or host.address is None:
            raise Unreachable(f"{host_id} has no address yet")
        return host.address

    # ------------------------------------------------------------ disks, the store

    def fill_target_disk(self, row: Migration) -> None:
        """The target's disk is full."""
        filler = self.stage.places.state / _known(row.target_id) / FILLER
        self._later(CUT_S, partial(filler.unlink, missing_ok=True))
        fill_up(filler)

    def lock_store(self, _row: Migration) -> None:
        """Somebody holds the database: nobody can write."""
        held = ExitStack()
        held.enter_context(self._held_store())
        self._later(STORE_LOCKED_S, held.close)

    def keep_commit_unheard(self, row: Migration) -> None:
        """The target's commit is written down, and it does not hear so."""
        with self._still_paused(row):
            self._cut(_known(row.target_id), str(at.CONTROL_UNDERLAY))
        end = time.monotonic() + COMMIT_LIMIT_S
        while self._phase_of(row) is MigrationPhase.PAUSED:
            if time.monotonic() > end:
                raise Escaped(f"the target of {row.id} had not said its word yet")
            self._never.wait(LOOK_INTERVAL_S)

    def fail_switchover(self, row: Migration) -> None:
        """The target's monitor dies when the guest stands still already and is not committed yet."""
        with self._still_paused(row):
            self.kill_target_monitor(row)

    @contextmanager
    def _still_paused(self, row: Migration) -> Iterator[None]:
        """Let nobody decide during the block. Raises `Escaped` if somebody has decided before it."""
        with self._held_store():
            if self._phase_of(row) is not MigrationPhase.PAUSED:
                raise Escaped(f"{row.id} was decided before")
            yield

    def _held_store(self) -> AbstractContextManager[object]:
        return self.stage.kit.hold_store(self.stage.places.state / "control")

    def _phase_of(self, row: Migration) -> MigrationPhase | None:
        seen = self.stage.store.migrations.get(row.id)
        return None if seen is None else seen.phase

    # ------------------------------------------------------------ the market, the job

    def leave_no_target(self, _host: HostId, notice_s: float) -> None:
        """Nobody else can take a guest: every other host is taken back too, and the market has none to sell."""
        self.stage.take_all_away(notice_s)
        self._later(notice_s, partial(self.stage.sell, machines=True))

    def notify_twice(self, row: Migration) -> None:
        """The notice comes again, for a host that is leaving already."""
        self.stage.take_away(_known(row.source_id), 15)

    def withdraw_notice(self, row: Migration) -> None:
        """The cloud takes its notice back."""
        self.stage.give_back(_known(row.source_id))

    def cancel_job(self, row: Migration) -> None:
        """Somebody cancels the job while it is moved."""
        github = self.stage.github
        for job in self.stage.in_internet(github.jobs):
            if job["runner_name"] == row.runner_id and job["conclusion"] is None:
                self.stage.in_internet(partial(github.cancel, job["id"]))

    def end_jobs(self, _row: Migration) -> None:
        """Every job is told to come to its end now."""
        self.stage.end_work()


def _known(host_id: HostId | None) -> HostId:
    if host_id is None:
        raise Escaped("the move has no such side")
    return host_id


def fill_up(filler: Path) -> None:
    """Let a file grow until nothing more fits on its disk."""
    try:
        with filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(FILLER_STEP))
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise


def _continue(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
