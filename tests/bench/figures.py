"""What the benchmark reports: every figure with its samples, medians side by side, and the ratio to the floor."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from statistics import median

from rich.table import Table


@dataclass
class Series:
    """One figure, measured again and again in one run."""

    what: str
    """`restore`, `migration`, `cold boot`."""
    figure: str
    unit: str
    ours: list[float] = field(default_factory=list)
    floor: list[float] = field(default_factory=list)
    """The same QEMU by hand; for a migration with TLS, as ours."""
    plain: list[float] = field(default_factory=list)
    """By hand without TLS."""
    limit: str = ""

    @property
    def ratio(self) -> float | None:
        """Ours to the floor, at the median."""
        if not self.ours or not self.floor or not median(self.floor):
            return None
        return median(self.ours) / median(self.floor)


@dataclass(frozen=True)
class Report:
    """One run."""

    qemu: str
    acceleration: str
    load: float
    """The machine's load average when it began: figures of a busy machine say little."""
    series: list[Series]
    notes: list[str]

    def json(self) -> dict[str, object]:
        """Return everything, samples included."""
        rows = [
            asdict(each) | {"medians": {name: _middle(getattr(each, name)) for name in SIDES}, "ratio": each.ratio}
            for each in self.series
        ]
        return {
            "qemu": self.qemu,
            "acceleration": self.acceleration,
            "load": self.load,
            "notes": self.notes,
            "series": rows,
        }

    def table(self) -> Table:
        """Return medians and ratios; the QEMU and the acceleration stand beside every figure."""
        table = Table(title=f"medians; load {self.load:.1f} when it began")
        for name in ("what", "figure", "ours", "by hand", "by hand, no TLS", "ratio", "wanted", "QEMU"):
            table.add_column(name, justify="left" if name in {"what", "figure", "wanted", "QEMU"} else "right")
        for each in self.series:
            sides = [_shown(getattr(each, name), each.unit) for name in SIDES]
            ratio = "" if each.ratio is None else f"{each.ratio:.2f}"
            table.add_row(each.what, each.figure, *sides, ratio, each.limit, f"{self.qemu}, {self.acceleration}")
        return table


SIDES = ("ours", "floor", "plain")


def _middle(samples: list[float]) -> float | None:
    return round(median(samples), 3) if samples else None


def _shown(samples: list[float], unit: str) -> str:
    return f"{median(samples):.1f} {unit}" if samples else ""
