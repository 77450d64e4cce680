"""What a person sees: a line for each thing that happens, a bar while they wait, and a table at the end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

Json = dict[str, Any]
VERDICTS: Final = {
    "survived": "bold white on green",
    "rerun": "bold black on yellow",
    "lost": "bold white on red",
    "failed": "bold white on red",
}
ROWS: Final = {
    "queue_to_start_s": ("webhook → first step", "s"),
    "steps_run": ("steps run", ""),
    "steps_rerun": ("steps run again", ""),
}
MOVE_ROWS: Final = {
    "notice_to_commit_s": ("notice → committed", "s"),
    "total_s": ("the whole move", "s"),
    "stopped_ms": ("guest stood still", "ms"),
    "commit_ms": ("… of it for the commit", "ms"),
    "guest_gap_ms": ("longest gap on a 5 ms beat in the guest", "ms"),
    "guest_gap_baseline_ms": ("… and without a move", "ms"),
    "memory_mib_sent": ("memory sent", "MiB"),
    "disk_mib_sent": ("disk sent", "MiB"),
}


class Bar:
    """One thing that is waited for."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def show(self, description: str, done: float | None = None, total: float | None = None) -> None:
        """Say what is waited for, and how much of it is over if that is known."""
        self._progress.update(self._task, description=description)
        if total is not None:
            self._progress.update(self._task, completed=done or 0.0, total=total)


class Screen:
    """Writes to the terminal, or plain lines where there is none."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        self.began_at = time.time()
        self.webhook_at: float | None = None

    def line(self, text: Text | str, at: float | None = None) -> None:
        """Write one line with the time since the webhook, before the webhook with the time since the start."""
        moment = time.time() if at is None else at
        if self.webhook_at is None:
            stamp = Text(f"{moment - self.began_at:9.1f} s  ", style="dim")
        else:
            stamp = Text(f"{moment - self.webhook_at:+9.2f} s  ", style="blue")
        self.console.print(stamp + (Text(text) if isinstance(text, str) else text), soft_wrap=True)

    @contextlib.contextmanager
    def waiting(self, description: str, total: float | None = None) -> Iterator[Bar]:
        """Show that something is going on until the block ends."""
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=30), TimeElapsedColumn())
        with Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal) as progress:
            yield Bar(progress, progress.add_task(description, total=total))

    def table(self, report: Json) -> None:
        """Write the summary."""
        verdict = report["verdict"]
        table = Table(title_justify="left", show_edge=False, pad_edge=False)
        table.add_column("")
        for number, job in enumerate(report["jobs"], start=1):
            table.add_column(f"job {number}: {job['conclusion']}", justify="right", style="bold")
        for label, *cells in _rows(report["jobs"]):
            table.add_row(label, *cells)
        self.console.print()
        self.console.print(Text(f" {verdict.upper()} ", style=VERDICTS[verdict]))
        self.console.print(table)
        self.console.print(_sentence(report), soft_wrap=True)
        if "clouds" in report:
            self._clouds(report["clouds"])
        if report["leftovers"]:
            self.console.print(Text(f"left behind: {', '.join(report['leftovers'])}", style="bold red"), soft_wrap=True)

    def _clouds(self, clouds: Json) -> None:
        """Write what was rented, what the job cost, and when each stage after the notice was reached."""
        hosts = Table(show_edge=False, pad_edge=False)
        for column in ("host", "machine"):
            hosts.add_column(column, no_wrap=True)
        for column in ("an hour", "on demand", "rented", "billed"):
            hosts.add_column(column, justify="right")
        for name, one in clouds["hosts"].items():
            prices = (f"${one['usd_per_hour']:.4f}", f"${one['on_demand_usd_per_hour']:.4f}")
            spans = (f"{one['rented_s']:.0f} s", f"${one['billed_usd']:.4f}")
            hosts.add_row(name, f"{one['cloud']} {one['type']}", *prices, *spans)
        job = clouds["job"]
        costs = Table(show_edge=False, pad_edge=False, show_header=False)
        costs.add_row("the job's part of its hosts", f"${job['usd']:.5f}", f"{job['seconds']:.0f} s")
        costs.add_row("… on demand where it began", f"${job['on_demand_usd']:.5f}", "")
        costs.add_row("… on GitHub's own runner", f"${job['github_usd']:.5f}", f"{job['github_minutes']} min begun")
        for stage, after_s in clouds["since_notice_s"].items():
            costs.add_row(f"notice → {stage.replace('_', ' ')}", "", f"{after_s:.1f} s")
        self.console.print()
        self.console.print(hosts)
        self.console.print(costs)

    def facts(self, report: Json) -> None:
        """Write a report of single figures."""
        table = Table(show_edge=False, pad_edge=False, show_header=False)
        for key, value in report.items():
            table.add_row(key.replace("_", " "), str(value))
        self.console.print(table)

    def survival(self, report: Json) -> None:
        """Write the survival report."""
        table = Table(show_edge=False, pad_edge=False, show_header=False)
        for key in ("count", "survived", "parked", "rerun", "lost", "double_runs", "steps_rerun", "mib_sent"):
            table.add_row(key.replace("_", " "), str(report[key]))
        for key in ("guest_gap_ms", "guest_gap_baseline_ms", "stopped_ms", "notice_to_commit_s"):
            table.add_row(key.replace("_", " "), "  ".join(f"{name} {value}" for name, value in report[key].items()))
        table.add_row("connections", ", ".join(f"{name} {value}" for name, value in report["connection"].items()))
        table.add_row("left behind", ", ".join(report["leftovers"]) or "nothing")
        self.console.print(table)


def _rows(jobs: list[Json]) -> Iterator[list[str]]:
    for key, (label, unit) in ROWS.items():
        yield [label, *(_cell(job[key], unit) for job in jobs)]
    yield ["its connection", *(_connection(job["connection"]) for job in jobs)]
    yield ["128 MiB on its disk", *("intact" if job["disk_sha256_ok"] else "not verified" for job in jobs)]
    yield ["moves", *(", ".join(_move(move) for move in job["migrations"]) or "none" for job in jobs)]
    for key, (label, unit) in MOVE_ROWS.items():
        if any(job["migrations"] for job in jobs):
            yield [label, *(", ".join(_cell(move[key], unit) for move in job["migrations"]) for job in jobs)]


def _sentence(report: Json) -> str:
    if report["cold_boot_s"] is None:
        return f"Guests ran on {report['accel']}; the simulated GitHub's job lock is {report['job_lock_s']:.0f} s."
    cold = f"A cold boot of the same guest took {report['cold_boot_s']:.1f} s ({report['accel']})"
    return f"{cold}; the simulated GitHub's job lock is {report['job_lock_s']:.0f} s."


def _move(move: Json) -> str:
    return f"{move['source']} → {move['target']}"


def _connection(connection: Json) -> str:
    if not connection["survived"]:
        return "broken"
    gap = f"longest gap {_cell(connection['longest_gap_ms'], 'ms')} at +{_cell(connection['longest_gap_at_s'], 's')}"
    stalled = connection["longest_gap_stalled_ms"]
    share = f" (the machine itself stood still for {_cell(stalled, 'ms')} of it)" if stalled else ""
    return f"held, {gap}{share}, {connection['lost_messages']} lost"


def _cell(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    text = f"{value:.0f}" if unit in {"", "MiB"} else f"{value:.1f}" if unit == "ms" else f"{value:.2f}"
    return f"{text} {unit}".strip()
