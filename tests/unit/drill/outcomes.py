"""What comes of each fault of a drill: what happens, who decides, and what the user sees.

Whatever is planted: never two running copies, never a job that nobody owns, never a host or an object left behind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from workers.rehearsal.drill.interruption import Outcome


@dataclass(frozen=True)
class Expected:
    """The outcome of one fault."""

    happens: str
    decides: str
    user_sees: str
    allowed: frozenset[Outcome]


_SURVIVES: Final = frozenset({Outcome.SURVIVED, Outcome.PARKED})
_AT_WORST_AGAIN: Final = _SURVIVES | {Outcome.RERUN}
_A_PAUSE: Final = "nothing but the pause of a move"

OUTCOMES: Final[Mapping[str, Expected]] = {
    "source_daemon_killed": Expected(
        "QEMU goes on without it; the next daemon reads its journal, then the row, and goes on from there",
        "the row", _A_PAUSE, _SURVIVES,
    ),
    "target_daemon_killed": Expected(
        "QEMU goes on without it; the next daemon asks its monitor, then the row; what failed meanwhile is tried again",
        "the row", _A_PAUSE, _SURVIVES,
    ),
    "source_gone": Expected(
        "before PAUSED the guest is lost with its host; from PAUSED on the target holds everything and commits",
        "the reconciler aborts, or the target commits", "the job goes on, or is run again once GitHub's lock is over",
        _AT_WORST_AGAIN,
    ),
    "target_gone": Expected(
        "before COMMITTED the guest goes on at the source and is sent elsewhere; after it, it is lost with the target",
        "the reconciler, once the cloud says that the target is gone", "the job goes on, or is run again",
        _AT_WORST_AGAIN,
    ),
    "control_killed": Expected(
        "nobody pauses while the row is out of reach; who stands still waits for the row; what the restart takes is"
        " missing from the notice, and on a slow machine that can be too much",
        "the row, when it can be read again", "a pause; at worst the job is run again", _AT_WORST_AGAIN,
    ),
    "redis_flushed": Expected(
        "hints are gone; the evacuation looks into the store every second", "the row", _A_PAUSE, _SURVIVES,
    ),
    "redis_gone": Expected("the same, for twenty seconds", "the row", _A_PAUSE, _SURVIVES),
    "relay_restarted": Expected(
        "the kernel goes on forwarding; the program reads its entries again", "the row, which the relay projects",
        _A_PAUSE, _SURVIVES,
    ),
    "relay_cut": Expected(
        "the relay is pointed to the target when it is heard again; until then the guest's packets are dropped",
        "the row", "a longer stall of its connections", _SURVIVES,
    ),
    "hosts_cut": Expected(
        "before the pause the source cuts both streams within 2 s and goes on; the move is tried again",
        "the source aborts", _A_PAUSE, _SURVIVES,
    ),
    "source_cut_from_control": Expected(
        "it does not pause before it has reached the row; standing still it waits to read it", "the row",
        "at most a longer pause", _SURVIVES,
    ),
    "target_cut_from_control": Expected(
        "its commit is not heard; both sides stand still until the row is read", "the row", "a longer pause", _SURVIVES,
    ),
    "source_slow": Expected(
        "the copy takes longer, or is given up and tried again", "the plan, by the deadline", _A_PAUSE, _SURVIVES,
    ),
    "store_locked": Expected(
        "nothing is decided; who stands still waits", "the row, when it can be written again",
        "a longer pause", _SURVIVES,
    ),
    "notice_twice": Expected("the earlier deadline counts", "the cloud", _A_PAUSE, _AT_WORST_AGAIN),
    "notice_withdrawn": Expected(
        "the host is emptied and given back all the same: a cloud that asked once asks again", "the plan", _A_PAUSE,
        _SURVIVES,
    ),
    "job_cancelled": Expected(
        "the runner ends in its own manner, wherever it is; the move ends with it", "GitHub",
        "a cancelled job", _SURVIVES,
    ),
}  # fmt: skip
