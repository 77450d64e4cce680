"""What is reported of many moves of one guest: pure arithmetic on what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, Final

from rich.table import Table

from workers.rehearsal import gaps
from workers.rehearsal.drill.tally import percentiles
from workers.rehearsal.gaps import Beat
from workers.rehearsal.pulse import Stall, stalled_ms

Json = dict[str, Any]
FIGURES: Final = ("stopped_ms", "commit_ms", "net_ms", "total_s", "memory_mib_sent", "guest_gap_ms", "clock_lost_ms")
# Issue: "20 consecutive moves of one guest there and back: the pause of the 20th at most 1.5 times the median".
CONSECUTIVE: Final = 20
PAUSE_RATIO_MAX: Final = 1.5
# Allocators keep what was freed: less than this of either is no growth.
MEMORY_GROWTH_MAX: Final = 0.1
MEMORY_SLACK_MIB: Final = 16.0


@dataclass(frozen=True)
class Sample:
    """One move, as both monitors, the row and the guest saw it."""

    stopped_at: float
    stopped_ms: float
    commit_ms: float
    net_ms: float
    total_s: float
    memory_mib_sent: float
    guest_gap_ms: float | None = None
    clock_lost_ms: float | None = None
    """What of the gap is the guest's clock standing still; the rest it has felt itself."""
    felt_after_s: float | None = None
    """How long after the guest stopped the longest gap of its beat ended; below 0: it was before, while memory went."""
    stalled_ms: float = 0.0
    """How long the machine itself stood still in the window of `guest_gap_ms`."""


@dataclass(frozen=True)
class Memory:
    """What processes hold, in MiB; the guests' own memory is not judged, since it grows by what they do."""

    daemons_mib: float
    monitor_mib: float
    guest_mib: float


def sampled(figures: Mapping[str, float]) -> Sample:
    """Read what both sides of one move have said."""
    stopped_ms = (figures["resumed_at"] - figures["stopped_at"]) * 1000
    commit_ms = (figures["commit_read_at"] - max(figures["completed_at"], figures["held_at"])) * 1000
    total_s = figures["total_s"] + figures["resumed_at"] - figures["completed_at"]
    net_ms = stopped_ms - commit_ms
    return Sample(figures["stopped_at"], stopped_ms, commit_ms, net_ms, total_s, figures["memory_mib_sent"])


def felt(sample: Sample, beat: Beat, stalls: Sequence[Stall]) -> Sample:
    """Add what the guest felt of it."""
    window = sample.stopped_at - gaps.WINDOW_S / 2, sample.stopped_at + gaps.WINDOW_S / 2
    stopped = beat.in_guest(sample.stopped_at)
    return replace(
        sample,
        guest_gap_ms=gaps.around(beat, sample.stopped_at),
        clock_lost_ms=round(beat.lost_ms(stopped), 1),
        felt_after_s=_longest_at(beat, stopped),
        stalled_ms=stalled_ms(stalls, *window),
    )


def _longest_at(beat: Beat, moment: float) -> float | None:
    """Return when the longest gap around this moment ended, in seconds after it, to a bucket's length."""
    place = (moment - beat.began_at) / beat.bucket_s
    half = round(gaps.WINDOW_S / 2 / beat.bucket_s)
    near = range(max(0, int(place) - half), min(len(beat.gaps_ms), int(place) + half + 1))
    longest = max(near, key=lambda bucket: beat.gaps_ms[bucket], default=None)
    return None if longest is None else round((longest + 1 - place) * beat.bucket_s, 2)


def swollen(before: Memory, after: Memory) -> list[str]:
    """Return which of our processes hold more than they did."""
    held = {"daemons": (before.daemons_mib, after.daemons_mib), "monitor": (before.monitor_mib, after.monitor_mib)}
    return [
        f"memory of the {what}: {earlier:.0f} MiB became {later:.0f} MiB"
        for what, (earlier, later) in held.items()
        if later > earlier * (1 + MEMORY_GROWTH_MAX) and later > earlier + MEMORY_SLACK_MIB
    ]


def consecutive(samples: Sequence[Sample]) -> Json | None:
    """Return whether pauses become longer by being many: the last of the first twenty against their median."""
    if len(samples) < CONSECUTIVE:
        return None
    first = [sample.stopped_ms for sample in samples[:CONSECUTIVE]]
    last = [sample.stopped_ms for sample in samples[-CONSECUTIVE:]]
    return {
        "moves": CONSECUTIVE,
        "median_ms": round(median(first), 1),
        "twentieth_ms": round(first[-1], 1),
        "ratio": round(first[-1] / median(first), 2),
        "wanted": PAUSE_RATIO_MAX,
        "last_twenty_median_ms": round(median(last), 1),
    }


def spread(samples: Sequence[Sample]) -> dict[str, Json]:
    """Return percentiles and maximum of each figure."""
    return {figure: _rounded(percentiles([getattr(one, figure) for one in samples])) for figure in FIGURES}


def table(samples: Sequence[Sample], title: str) -> Table:
    """Return the percentiles for reading."""
    shown = Table(title=title)
    for name in ("figure", "p50", "p95", "p99", "max"):
        shown.add_column(name, justify="left" if name == "figure" else "right")
    for figure, values in spread(samples).items():
        shown.add_row(figure, *("" if value is None else f"{value:.1f}" for value in values.values()))
    return shown


def _rounded(values: Json) -> Json:
    return {name: value if value is None else round(value, 2) for name, value in values.items()}
