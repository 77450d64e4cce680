"""The reaper: what is left over on one of three sides is ended, and what has vanished is noted.

    survey ─▶ `planning.reaping`: suspicions, held for their grace ─▶ deregister, stop, retire, note, ask

Nothing is done on the strength of a memory: each act looks again at what it is about, under the row's lease if there is
one, and GitHub itself refuses to let a busy runner go.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final, assert_never

import structlog

from workers.domain.errors import Refused, TryLater
from workers.domain.events import Event, Happening
from workers.domain.listed import Scope
from workers.domain.runner import RUNNER, RunnerEnd, RunnerState
from workers.planning import reaping
from workers.planning.reaping import AskJob, Deregister, NoteVanished, Reap, Retire, StopMicrovm
from workers.ports import Clock, GitHub, Hints, HostApi, Store
from workers.reconcilers.catch_up import CatchUp
from workers.reconcilers.standing import WhereInstalled
from workers.reconcilers.survey import Survey

log = structlog.get_logger()

# What hosts say costs nothing to read, so every sweep looks, and a leftover microVM is ended well within a minute.
LOOK_INTERVAL: Final = timedelta(seconds=10)


class Reaper:
    """Ends what nobody stands for. Doubled looks ask for the same again, which does no harm."""

    def __init__(
        self,
        store: Store,
        survey: Survey,
        github: GitHub,
        hosts: HostApi,
        hints: Hints,
        clock: Clock,
        catch_up: CatchUp,
        interval: timedelta = LOOK_INTERVAL,
    ) -> None:
        self._store, self._survey, self._github, self._hosts = store, survey, WhereInstalled(store, github), hosts
        self._hints, self._clock, self._catch_up, self._interval = hints, clock, catch_up, interval
        self._held: dict[Reap, datetime] = {}  # forgotten at a restart, which costs a grace
        self._looked_at: datetime | None = None

    def is_due(self, now: datetime) -> bool:
        """Say whether it is time for a look."""
        return self._looked_at is None or now - self._looked_at >= self._interval

    def look(self) -> None:
        """Compare the three sides and act on what has been wrong for long enough."""
        self._looked_at = now = self._clock.now()
        sides = self._survey.sides(now, reaping.doubtful(self._held))
        found = list(reaping.suspicions(sides))
        acts, self._held = reaping.ripe(found, self._held, frozenset(sides.listed), now)
        for act in acts:
            try:
                self._act(act)
            except (TryLater, Refused) as error:  # the rest goes on, and the next look comes back to this
                log.info("later", kind="reap", id=act.runner_id, why=str(error))

    def _act(self, act: Reap) -> None:
        match act:
            case Deregister():
                self._github.deregister(act.scope.installation_id, act.scope.repository, act.github_id)
                self._tell(act, "a registration that nobody stands for was taken away")
            case StopMicrovm():
                self._stop(act)
            case Retire():
                self._retire(act)
            case NoteVanished():
                self._note_vanished(act)
            case AskJob():
                self._ask(act)
            case _:
                assert_never(act)

    def _stop(self, act: StopMicrovm) -> None:
        host = self._store.hosts.get(act.host_id)
        if host is not None:
            self._hosts.stop(host, act.runner_id, act.epoch)
            self._tell(act, "a microVM that nobody stands for was stopped")

    def _retire(self, act: Retire) -> None:
        """Let an idle runner go whose registration GitHub has removed: it would never get a job."""
        with self._store.runners.lease(act.runner_id) as lease:
            row = lease.row
            if (row.state, row.github_id) != (RunnerState.IDLE, act.github_id):
                return
            retiring = replace(row, state=RUNNER.move(row.state, RunnerState.RETIRING))
            lease.write(retiring, self._event(act, "its registration is gone"))
        self._hints.look_at("runner", act.runner_id)

    def _note_vanished(self, act: NoteVanished) -> None:
        """Write down that this runner is no more; its job, if it has one, is lost, and GitHub is left to find out."""
        with self._store.runners.lease(act.runner_id) as lease:
            row = lease.row
            is_same = (row.host_id, row.epoch, row.migration_id) == (act.host_id, act.epoch, None)
            if not is_same or RunnerState.STOPPING not in RUNNER.moves[row.state]:
                return
            ended = replace(row, state=RUNNER.move(row.state, RunnerState.STOPPING), end=RunnerEnd.VANISHED)
            lease.write(ended, self._event(act, "its microVM is gone"))
        self._hints.look_at("runner", act.runner_id)
        self._hints.look_at("job", str(row.job_id))

    def _ask(self, act: AskJob) -> None:
        row = self._store.runners.get(act.runner_id)
        job = self._store.jobs.get(row.job_id) if row else None
        if job is not None and job.end is None:
            # Its runner may be registered elsewhere than in its own repository.
            self._catch_up.ask_about(Scope(job.installation_id, job.repository), job.run_id)

    def _tell(self, act: Reap, what: str) -> None:
        log.warning("reaped", what=what, runner=act.runner_id)
        self._store.record(self._event(act, what))

    def _event(self, act: Reap, what: str) -> Event:
        host_id = act.host_id if isinstance(act, StopMicrovm | NoteVanished) else None
        detail = {"what": what}
        return Event(Happening.REAPED, self._clock.now(), runner_id=act.runner_id, host_id=host_id, detail=detail)
