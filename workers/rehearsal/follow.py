"""One line for each thing that happens: the control plane's timeline, the job's steps, and what the market does."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from rich.text import Text

from workers.domain.events import Event, Happening

Json = dict[str, Any]

# After the lock has expired GitHub must still be told, and the rerun be asked for and delivered.
RERUN_LIMIT_S: Final = 60.0

# What a reader looks for first in a line has a colour of its own.
JOB: Final = "bold cyan"
RUNNER: Final = "bold green"
HOST: Final = "bold yellow"
MOVE: Final = "bold magenta"
STYLES: Final = {"job": JOB, "runner": RUNNER, "host": HOST, "move": MOVE}

SENTENCES: Final = {
    Happening.JOB_QUEUED: "{job} is queued",
    Happening.JOB_WAITING: "{job} waits for its environment",
    Happening.JOB_UNSERVED: "{job} asks for labels that nobody serves",
    Happening.JOB_DEFERRED: "{job} has to wait for its pool",
    Happening.POLICY_REFUSED: "the pools file is not right, so the former one holds",
    Happening.POLICY_READ: "the pools file was read again",
    Happening.JOB_PLACED: "{job} gets {runner} on {host}",
    Happening.JOB_REQUEUED: "{job} counts on {runner} no more and gets another one",
    Happening.JOB_STARTED: "{job} runs on {runner}",
    Happening.JOB_COMPLETED: "{job} is completed",
    Happening.JOB_LOST: "{job} is lost with its host",
    Happening.JOB_STOPPED: "{job} is stopped: nothing is done for it any more",
    Happening.INSTALLATION_CHANGED: "an installation of the App has changed",
    Happening.RERUN_ASKED: "GitHub is asked to run {job} again",
    Happening.RERUN_REFUSED: "{job} is not run again",
    Happening.RUNNER_REQUESTED: "{runner} is wanted on {host}",
    Happening.RUNNER_RESTORED: "{runner} is restored from its package on {host}",
    Happening.RUNNER_REGISTERED: "{runner} is registered with GitHub",
    Happening.RUNNER_STARTED: "{runner} has its configuration and asks for work",
    Happening.RUNNER_TAKEN: "{runner} was given to {job} instead of the one that counted on it",
    Happening.RUNNER_STOPPED: "{runner} is stopped",
    Happening.RUNNER_GONE: "{runner} is gone",
    Happening.REGISTRATION_LEFT: "{runner} stays registered at GitHub, which does not let us take that away",
    Happening.BREAKER_TRIPPED: "{runner} got no job like those before it: no more of its kind are made for a while",
    Happening.BREAKER_CLOSED: "{runner} got a job: its kind is made again",
    Happening.REAPED: "what was left over, or had vanished, is put in order",
    Happening.HOLD_BEGAN: "{runner} is held: its job is not to be moved",
    Happening.HOLD_ENDED: "{runner} is let go by its job, it may be moved",
    Happening.HOLD_BROKEN: "the hold of {runner} is broken by the deadline of {host}",
    Happening.HOST_REQUESTED: "{host} is wanted",
    Happening.LAUNCH_REFUSED: "{host} is not to be had there",
    Happening.HOST_LAUNCHED: "{host} is ordered",
    Happening.HOST_REGISTERED: "{host} has registered and got its certificate",
    Happening.HOST_RUNNING: "{host} runs",
    Happening.REGISTRATION_REFUSED: "somebody who came with the token of {host} is not let in",
    Happening.HOST_TROUBLED: "{host} is not ready yet",
    Happening.HOST_READY: "{host} has proved itself and is ready",
    Happening.HOST_NOTICE: "{host} has seen the notice",
    Happening.HOST_DRAINING: "{host} takes nothing in any more",
    Happening.HOST_LOST: "{host} is silent and counts as lost",
    Happening.HOST_TERMINATED: "{host} is terminated",
    Happening.EVACUATION_DECIDED: "what becomes of {runner} is decided",
    Happening.MIGRATION_PLANNED: "{move}: {runner} is to leave {host}",
    Happening.MIGRATION_RECEIVING: "{move}: the target listens",
    Happening.MIGRATION_COPYING: "{move}: memory and disk are being copied",
    Happening.MIGRATION_PAUSED: "{move}: everything is copied, the guest stands still on both sides",
    Happening.MIGRATION_COMMITTED: "{move}: committed, the guest belongs to {host}",
    Happening.MIGRATION_RUNNING: "{move}: the guest runs on {host}",
    Happening.MIGRATION_FINISHED: "{move}: finished, nothing is left at the source",
    Happening.MIGRATION_ABORTED: "{move}: aborted",
    Happening.PARK_ENDED: "{move}: nothing of {runner} is left in the object store",
    Happening.RELAY_POINTED: "the relay sends the traffic of {runner} to {host}",
}


class Timeline(Protocol):
    """The part of the store that is followed."""

    def timeline(self, after: int = 0) -> Sequence[tuple[int, Event]]:
        """Return the entries behind the entry with this number, each with its own number, oldest first."""


@dataclass
class Follower:
    """Reads what is new in the timeline and remembers all of it."""

    store: Timeline
    seen: list[Event] = field(default_factory=list)
    last: int = 0

    def fresh(self) -> list[Event]:
        """Return the entries that came since the last call."""
        entries = self.store.timeline(self.last)
        if entries:
            self.last = entries[-1][0]
            self.seen.extend(event for _, event in entries)
        return [event for _, event in entries]

    def has(self, happening: Happening, **ids: object) -> bool:
        """Say whether this has happened, to rows with these ids if any are given."""
        return any(
            event.happening is happening and all(getattr(event, name) == value for name, value in ids.items())
            for event in self.seen
        )

    def count(self, happening: Happening) -> int:
        return sum(event.happening is happening for event in self.seen)


def told(event: Event) -> Text:
    """Return an entry of the timeline as one sentence, what else it knows behind it."""
    names = {
        "job": f"job {event.job_id}",
        "runner": str(event.runner_id or "a runner"),
        "host": str(event.host_id or event.detail.get("host") or "a host"),
        "move": str(event.migration_id or "a move"),
    }
    line = sentence(SENTENCES[event.happening], **names)
    rest = [f"{name} {_short(value)}" for name, value in event.detail.items() if _is_told(name) and _says(value)]
    return line.append(f"  {', '.join(rest)}", style="dim") if rest else line


def sentence(template: str, **names: str) -> Text:
    """Fill a template and give each noun its colour."""
    line = Text()
    for part in template.replace("}", "{").split("{"):
        line.append(names[part], style=STYLES.get(part, "bold")) if part in names else line.append(part)
    return line


def _is_told(name: str) -> bool:
    """The host stands in the sentence already, and moments say nothing to a person as Unix times."""
    return name != "host" and not name.endswith("_at")


def _says(value: object) -> bool:
    return value is not None and value is not False


def _short(value: object) -> str:
    return f"{value:.1f}" if isinstance(value, float) else str(value)


@dataclass
class StepWatch:
    """Notices the steps of one attempt at a job begin and end."""

    known: dict[tuple[int, int], str] = field(default_factory=dict)

    def fresh(self, attempt: Json) -> Iterator[Text]:
        """Return a line for each step whose state has changed."""
        job = f"job {attempt['id']}"
        for step in attempt["steps"]:
            state = step["conclusion"] or ("started" if step["starts"] else "waiting")
            key = (attempt["id"], step["number"])
            if self.known.get(key, "waiting") != state:
                self.known[key] = state
                verb = "begins" if state == "started" else f"ends: {state}"
                yield sentence(
                    f"{{job}}, step {step['number']} of {len(attempt['steps'])} “{{step}}” {verb}",
                    job=job,
                    step=step["name"],
                )


def steps_over(attempt: Json) -> int:
    """Return how many steps of an attempt have ended."""
    return sum(step["conclusion"] is not None for step in attempt["steps"])


def has_ended(attempts: Sequence[Json], follower: Follower, *, was_interrupted: bool) -> bool:
    """Say whether nothing more can come of a job: a lost one is run again a little later."""
    last = attempts[-1]
    if last["conclusion"] is None:
        return False
    # GitHub may fail a job before the control plane has noticed that its host is gone.
    has_failed = was_interrupted and any(step["conclusion"] == "failure" for step in last["steps"])
    was_lost = follower.has(Happening.JOB_LOST, job_id=last["id"])
    if last["conclusion"] == "success" or not (was_lost or has_failed):
        return True
    return bool(time.time() - last["completed_at"] > RERUN_LIMIT_S)
