"""What else goes wrong while a host is taken away: real kills, real cuts, each at a chosen phase of the first move.

chosen: name@phase ──▶ the move reaches the phase ──▶ planted ──▶ (a while later) mended
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from workers.domain.errors import BadInput, Unreachable
from workers.domain.migration import Migration, MigrationPhase
from workers.domain.names import HostId
from workers.rehearsal import places as at
from workers.rehearsal.commands import run, run_quietly
from workers.rehearsal.stage import Stage

# Long enough for every time limit of the protocol to pass, short enough for a notice of 20 s.
CUT_S: Final = 3.0
REDIS_GONE_S: Final = 20.0
STORE_LOCKED_S: Final = 3.0
RESTART_S: Final = 1.0
TABLE: Final = "drill"
PHASES: Final = (MigrationPhase.RECEIVING, MigrationPhase.COPYING, MigrationPhase.PAUSED, MigrationPhase.COMMITTED)


@dataclass
class Saboteur:
    """Plants faults on one stage, and mends what has lasted long enough."""

    stage: Stage
    _repairs: list[tuple[float, Callable[[], object]]] = field(default_factory=list)

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
        namespace = self.stage.places.namespace(_known(row.source_id))
        tc = ("ip", "netns", "exec", namespace, "tc", "qdisc")
        run(*tc, "add", "dev", "eth0", "root", "tbf", "rate", "5mbit", "burst", "32kb", "latency", "50ms")
        self._later(CUT_S, lambda: _leniently(*tc, "del", "dev", "eth0", "root"))

    def _cut(self, role: str, address: str) -> None:
        inside = ("ip", "netns", "exec", self.stage.places.namespace(role), "nft")
        chain = f"type filter hook input priority -300; ip saddr {address} drop;"
        run(*inside, f"table inet {TABLE} {{ chain in {{ {chain} }}; }}")
        self._later(CUT_S, lambda: _leniently(*inside, "delete", "table", "inet", TABLE))

    def _address(self, host_id: HostId | None) -> str:
        host = self.stage.store.hosts.get(_known(host_id))
        if host is None or host.address is None:
            raise Unreachable(f"{host_id} has no address yet")
        return host.address

    # ------------------------------------------------------------ the store, the market, the job

    def lock_store(self, _row: Migration) -> None:
        """Somebody holds the database: nobody can write."""
        held = ExitStack()
        held.enter_context(self.stage.kit.hold_store(self.stage.places.state / "control"))
        self._later(STORE_LOCKED_S, held.close)

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


FAULTS: Final[Mapping[str, Callable[[Saboteur, Migration], None]]] = {
    "source_daemon_killed": Saboteur.kill_source_daemon,
    "target_daemon_killed": Saboteur.kill_target_daemon,
    "source_gone": Saboteur.end_source,
    "target_gone": Saboteur.end_target,
    "control_killed": Saboteur.kill_control_plane,
    "redis_flushed": Saboteur.flush_redis,
    "redis_gone": Saboteur.stop_redis,
    "relay_restarted": Saboteur.restart_relay,
    "relay_cut": Saboteur.cut_relay,
    "hosts_cut": Saboteur.cut_hosts,
    "source_cut_from_control": Saboteur.cut_source_from_control,
    "target_cut_from_control": Saboteur.cut_target_from_control,
    "source_slow": Saboteur.slow_source,
    "store_locked": Saboteur.lock_store,
    "notice_twice": Saboteur.notify_twice,
    "notice_withdrawn": Saboteur.withdraw_notice,
    "job_cancelled": Saboteur.cancel_job,
}


def chosen_faults(text: str) -> tuple[str, ...]:
    """Read `none`, `all` or a list of `name` or `name@phase`; return every `name@phase` meant. Raises `BadInput`."""
    if text == "none":
        return ()
    wanted = list(FAULTS) if text == "all" else text.split(",")
    return tuple(full for one in wanted for full in _with_phases(one.strip()))


def _with_phases(text: str) -> Sequence[str]:
    name, _, phase = text.partition("@")
    phases = [one.name.lower() for one in PHASES]
    if name not in FAULTS or phase not in {"", *phases}:
        raise BadInput(f"--faults {text!r}: use none, all, or a list of {', '.join(FAULTS)}, each @{'|'.join(phases)}")
    return [f"{name}@{one}" for one in ([phase] if phase else phases)]


def phase_of(fault: str) -> MigrationPhase:
    """Return the phase at which a `name@phase` is planted."""
    return MigrationPhase[fault.partition("@")[2].upper()]


def _known(host_id: HostId | None) -> HostId:
    if host_id is None:
        raise Unreachable("the move has no such side")
    return host_id


def _leniently(*command: str) -> None:
    """The namespace may be gone with its host."""
    run_quietly(*command)
