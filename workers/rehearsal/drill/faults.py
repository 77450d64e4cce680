"""The faults of a drill by their names, and how a user chooses among them.

chosen: name@phase ──▶ the move reaches the phase ──▶ planted ──▶ (a while later) mended
chosen: name       ──▶ planted with the notice    ───────────▶ mended when the host is gone
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from workers.domain.errors import BadInput
from workers.domain.migration import Migration, MigrationPhase
from workers.domain.names import HostId
from workers.rehearsal.drill.saboteur import Saboteur

PHASES: Final = (MigrationPhase.RECEIVING, MigrationPhase.COPYING, MigrationPhase.PAUSED, MigrationPhase.COMMITTED)

# Planted when a move off the host is in a phase.
FAULTS: Final[Mapping[str, Callable[[Saboteur, Migration], None]]] = {
    "source_daemon_killed": Saboteur.kill_source_daemon,
    "target_daemon_killed": Saboteur.kill_target_daemon,
    "target_monitor_killed": Saboteur.kill_target_monitor,
    "target_monitor_stopped": Saboteur.stop_target_monitor,
    "source_gone": Saboteur.end_source,
    "target_gone": Saboteur.end_target,
    "control_killed": Saboteur.kill_control_plane,
    "redis_flushed": Saboteur.flush_redis,
    "redis_gone": Saboteur.stop_redis,
    "relay_restarted": Saboteur.restart_relay,
    "relay_cut": Saboteur.cut_relay,
    "hosts_cut": Saboteur.cut_hosts,
    "hosts_reset": Saboteur.reset_hosts,
    "source_cut_from_control": Saboteur.cut_source_from_control,
    "target_cut_from_control": Saboteur.cut_target_from_control,
    "source_slow": Saboteur.slow_source,
    "target_disk_full": Saboteur.fill_target_disk,
    "store_locked": Saboteur.lock_store,
    "notice_twice": Saboteur.notify_twice,
    "notice_withdrawn": Saboteur.withdraw_notice,
    "job_cancelled": Saboteur.cancel_job,
    "jobs_end": Saboteur.end_jobs,
}
# The same, but they make sense in one phase only.
OF_ONE_PHASE: Final[Mapping[str, tuple[MigrationPhase, Callable[[Saboteur, Migration], None]]]] = {
    "commit_unheard": (MigrationPhase.PAUSED, Saboteur.keep_commit_unheard),
    "switchover_fails": (MigrationPhase.PAUSED, Saboteur.fail_switchover),
}
# Planted with the notice of a host, and there until the host is gone.
WITH_NOTICE: Final[Mapping[str, Callable[[Saboteur, HostId, float], None]]] = {
    "no_target": Saboteur.leave_no_target,
    "hosts_far": Saboteur.part_hosts,
    "control_far": Saboteur.part_control,
    "redis_gone_first": Saboteur.stop_redis_first,
}
# Of those, the ones by which every host is taken away, with its jobs.
TAKES_ALL: Final = frozenset({"no_target"})
NAMES: Final = (*FAULTS, *OF_ONE_PHASE, *WITH_NOTICE)


def chosen_faults(text: str) -> tuple[str, ...]:
    """Read `none`, `all` or a list of `name` or `name@phase`; return each that is meant, in full. Raises `BadInput`."""
    if text == "none":
        return ()
    wanted = list(NAMES) if text == "all" else text.split(",")
    return tuple(full for one in wanted for full in _in_full(one.strip()))


def _in_full(text: str) -> Sequence[str]:
    name, _, phase = text.partition("@")
    if name not in NAMES or phase not in {"", *(one.name.lower() for one in phases_of(name))}:
        known = ", ".join(f"{one}{_choice(one)}" for one in NAMES)
        raise BadInput(f"--faults {text!r}: use none, all, or a list of {known}; without a phase each is meant")
    if name in WITH_NOTICE:
        return [name]
    return [f"{name}@{one}" for one in ([phase] if phase else [one.name.lower() for one in phases_of(name)])]


def phases_of(name: str) -> Sequence[MigrationPhase]:
    """Return the phases at which a fault can be planted; none for one that comes with the notice."""
    if name in WITH_NOTICE:
        return ()
    return (OF_ONE_PHASE[name][0],) if name in OF_ONE_PHASE else PHASES


def _choice(name: str) -> str:
    phases = "|".join(one.name.lower() for one in phases_of(name))
    return f"[@{phases}]" if phases else ""


def phase_of(fault: str) -> MigrationPhase | None:
    """Return the phase at which a fault is planted, None if with the notice."""
    phase = fault.partition("@")[2]
    return MigrationPhase[phase.upper()] if phase else None


def planter_at_phase(fault: str) -> Callable[[Saboteur, Migration], None]:
    """Return what plants a `name@phase` in a move."""
    name = fault.partition("@")[0]
    return OF_ONE_PHASE[name][1] if name in OF_ONE_PHASE else FAULTS[name]
