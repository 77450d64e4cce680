"""The looks at what nobody told us of, put together."""

from __future__ import annotations

from workers.listing import GitHubLists
from workers.ports import Clock, GitHub, Hints, HostApi, Store
from workers.reconcilers.catch_up import SWEEP_INTERVAL, CatchUp
from workers.reconcilers.installed import INSTALLED_INTERVAL, Installed
from workers.reconcilers.reaper import LOOK_INTERVAL, Reaper
from workers.reconcilers.recovery import Recovery
from workers.reconcilers.replay import REPLAY_INTERVAL, Replay
from workers.reconcilers.survey import LIST_INTERVAL, Ours, Survey


def recovery_of(
    store: Store,
    github: GitHub,
    lists: GitHubLists,
    hosts: HostApi,
    hints: Hints,
    clock: Clock,
    ours: Ours,
    pace: float = 1.0,
) -> Recovery:
    """`pace` multiplies every interval."""
    catch_up = CatchUp(store, lists, hints, clock, SWEEP_INTERVAL * pace, ours.served)
    survey = Survey(store, lists, clock, ours, LIST_INTERVAL * pace)
    reaper = Reaper(store, survey, github, hosts, hints, clock, catch_up, LOOK_INTERVAL * pace)
    installed = Installed(store, lists, hints, clock, INSTALLED_INTERVAL * pace)
    return Recovery(installed, Replay(store, lists, clock, REPLAY_INTERVAL * pace), catch_up, reaper, clock)
