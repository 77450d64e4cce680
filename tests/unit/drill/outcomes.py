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
_A_LONGER_PAUSE: Final = "a longer pause"

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
    "notice_twice": Expected(
        "the host is draining already; the earlier deadline counts", "the cloud", _A_PAUSE, _AT_WORST_AGAIN,
    ),
    "notice_withdrawn": Expected(
        "the host is emptied and given back all the same: a cloud that asked once asks again", "the plan", _A_PAUSE,
        _SURVIVES,
    ),
    "target_monitor_killed": Expected(
        "before COMMITTED the guest goes on at the source, or is taken back there, and is sent again; after it, the"
        " guest is lost",
        "the target aborts, until the row is COMMITTED", "a pause; after the commit the job is run again",
        _AT_WORST_AGAIN,
    ),
    "target_monitor_stopped": Expected(
        "the streams stand still with it; the source backs out, or waits for it if the guest stands still already",
        "the row", _A_LONGER_PAUSE, _SURVIVES,
    ),
    "switchover_fails": Expected(
        "the source's monitor has completed and stands still; the target's dies before its word, so the row is ABORTED"
        " and the source takes its guest back; if its word was on its way already, the row is COMMITTED and the guest"
        " is lost",
        "the row, by who comes first", "a pause, or the job is run again", _AT_WORST_AGAIN,
    ),
    "commit_unheard": Expected(
        "the row is COMMITTED and the target, which does not know, keeps the guest still until it can read it",
        "the row", "a pause as long as the cut", _SURVIVES,
    ),
    "hosts_reset": Expected(
        "both streams end at once and so does the attempt; before the pause the guest goes on at the source",
        "the source aborts", _A_PAUSE, _SURVIVES,
    ),
    "hosts_far": Expected(
        "the streams carry what a window carries in 300 ms, and the mirror acknowledges a write after as much",
        "the plan, by the deadline", "slower writes while it is copied", _SURVIVES,
    ),
    "control_far": Expected(
        "every read of the row takes 300 ms longer: both sides still reach it within the second that a pause needs",
        "the row", _A_LONGER_PAUSE, _SURVIVES,
    ),
    "target_disk_full": Expected(
        "the mirror fails, the source goes on, and the move is tried again until there is room",
        "either side aborts", _A_PAUSE, _SURVIVES,
    ),
    "redis_gone_first": Expected(
        "the notice is written down without a hint; the evacuation looks into the store every second", "the row",
        _A_PAUSE, _SURVIVES,
    ),
    "no_target": Expected(
        "every other host leaves too and none can be bought: the guest goes to the store, and on with the next host",
        "the plan; the control plane commits once all parts are there", "a pause until there is a host again",
        frozenset({Outcome.PARKED}),
    ),
    "jobs_end": Expected(
        "the runner ends in its own manner, wherever it is; the move ends with it, or comes first", "GitHub",
        "a job that has succeeded", _SURVIVES,
    ),
    "job_cancelled": Expected(
        "the runner ends in its own manner, wherever it is; the move ends with it", "GitHub",
        "a cancelled job", _SURVIVES,
    ),
}  # fmt: skip

# What no drill plants, since this one machine cannot, and where it is played instead.
ELSEWHERE: Final[Mapping[str, tuple[str, str]]] = {
    "clock_off": (
        "what is left until a host's end is counted by the cloud's own clock; its own may be wrong by five minutes",
        "tests/unit/test_notices.py",
    ),
    "word_lost_doubled_late": (
        "any read and any word of either side gets lost, comes twice or comes late, at every step",
        "tests/simulation/test_migration.py",
    ),
    "switchover_undone_by_the_source": (
        "the source's monitor fails after it has stopped the guest and before it has completed, and runs it again",
        "tests/simulation/test_migration.py",
    ),
    "park_or_resume_broken": (
        "either side, the store and the row fail at every step of a park and of a resume",
        "tests/simulation/test_storage.py",
    ),
}
