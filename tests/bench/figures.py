"""What the benchmark reports: every figure with its samples, medians side by side, and ours as a part of the others."""

from __future__ import annotations

import subprocess
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Final

from rich.console import Console
from rich.table import Table

console = Console(soft_wrap=True)
if not console.is_terminal:
    console.width = 160  # a table in a file is not folded for a screen

OURS: Final = "ours"


@dataclass
class Series:
    """One figure, measured again and again in one run."""

    what: str
    """`restore`, `migration`, `cold boot`."""
    figure: str
    unit: str
    limit: str = ""
    samples: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """By side: ours, and what it is compared with."""

    def ratio(self, other: str) -> float | None:
        """Return ours to another side, at the median."""
        ours, theirs = self.samples.get(OURS), self.samples.get(other)
        if not ours or not theirs or not median(theirs):
            return None
        return median(ours) / median(theirs)


@dataclass(frozen=True)
class Report:
    """One run."""

    acceleration: str
    load: float
    """The machine's load average when it began: figures of a busy machine say little."""
    sides: Mapping[str, str]
    """Side -> its title."""
    measures: tuple[str, ...]
    """The sides that ours is measured against; the first decides."""
    series: list[Series]
    notes: list[str]

    def json(self) -> dict[str, Any]:
        """Return everything, samples included."""
        return {
            "qemu": monitor_version(),
            "acceleration": self.acceleration,
            "load": self.load,
            "notes": self.notes,
            "series": [self._row(each) for each in self.series],
        }

    def _row(self, each: Series) -> dict[str, Any]:
        medians = {side: _middle(each.samples.get(side, [])) for side in self.sides}
        ratios = {side: each.ratio(side) for side in self.sides if side != OURS}
        row = {"what": each.what, "figure": each.figure, "unit": each.unit, "limit": each.limit, "medians": medians}
        return row | {"ratio": ratios[self.measures[0]], "ratios": ratios, "samples": dict(each.samples)}

    def table(self) -> Table:
        """Return medians and ratios; the QEMU and the acceleration stand beside every figure."""
        table = Table(title=f"medians; load {self.load:.1f} when it began")
        ratios = [f"to {self.sides[side]}" for side in self.measures]
        for name in ("what", "figure", *self.sides.values(), *ratios, "wanted", "QEMU"):
            table.add_column(name, justify="left" if name in {"what", "figure", "wanted", "QEMU"} else "right")
        version = monitor_version()
        for each in self.series:
            sides = [_shown(each.samples.get(side, []), each.unit) for side in self.sides]
            shown = ["" if (ratio := each.ratio(side)) is None else f"{ratio:.2f}" for side in self.measures]
            table.add_row(each.what, each.figure, *sides, *shown, each.limit, f"{version}, {self.acceleration}")
        return table


def _middle(samples: list[float]) -> float | None:
    return round(median(samples), 3) if samples else None


def _shown(samples: list[float], unit: str) -> str:
    return f"{median(samples):.1f} {unit}" if samples else ""


def monitor_version() -> str:
    """Return the version of this machine's QEMU, for example `10.0.2`."""
    said = subprocess.run(["qemu-system-x86_64", "--version"], check=True, capture_output=True, text=True, timeout=20)
    return said.stdout.split("version ")[1].split()[0]
