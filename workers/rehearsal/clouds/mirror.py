"""Gives every instance that a cloud calls running a machine on this one, and tells the cloud of a machine's end.

cloud: running ──▶ landlord: a namespace with the instance's own user data and metadata ──▶ the real bootstrap
cloud: gone    ──▶ landlord: ended            landlord: ended (taken back, switched off) ──▶ cloud: terminated
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import httpx

from workers.domain.errors import NoCapacity
from workers.domain.names import HostId
from workers.ports import InstanceState
from workers.rehearsal.landlord import Landlord
from workers.rehearsal.plots import Plot

# A cloud's instance that has just begun to run needs seconds to boot; so much later nobody sees it.
LOOK_INTERVAL_S: Final = 0.5


@dataclass(frozen=True)
class Shown:
    """An instance that a cloud calls running."""

    host_id: HostId
    plot: Plot
    user_data: str


class Side(Protocol):
    """One cloud as its owner sees it. Every call raises `httpx.HTTPError` without an answer."""

    @property
    def name(self) -> str:
        """Return the cloud's."""

    def running(self) -> Sequence[Shown]:
        """Return what runs by the cloud's word."""

    def end(self, shown: Shown) -> None:
        """Let the cloud know that this machine is no more."""


@dataclass(frozen=True)
class Difference:
    """What is to be done so that machines and instances are the same."""

    begin: tuple[HostId, ...] = ()
    end: tuple[HostId, ...] = ()
    tell: tuple[HostId, ...] = ()
    """Their machines are no more, and the cloud does not know it."""


def difference(
    shown: Collection[HostId], before: Collection[HostId], there: Mapping[HostId, InstanceState]
) -> Difference:
    """Compare what a cloud shows, and has shown before, with the machines that there are or were."""
    ended = {name for name, state in there.items() if state is InstanceState.TERMINATED}
    return Difference(
        begin=tuple(sorted(one for one in shown if one not in there)),
        end=tuple(sorted(one for one in before if one not in shown and one in there and one not in ended)),
        tell=tuple(sorted(one for one in shown if one in ended)),
    )


class Mirror:
    """Follows the clouds; `look` may come from one thread at a time."""

    def __init__(self, landlord: Landlord, sides: Sequence[Side]) -> None:
        self._landlord, self._sides = landlord, sides
        self._shown: dict[str, dict[HostId, Shown]] = {side.name: {} for side in sides}

    def follow(self) -> None:
        """Look for ever; a cloud that does not answer is asked again."""
        while True:
            self.look()
            time.sleep(LOOK_INTERVAL_S)

    def look(self) -> None:
        """Make one round."""
        for side in self._sides:
            try:
                self._look_at(side)
            except (httpx.HTTPError, NoCapacity) as error:
                print(f"{side.name}: {error!r}", flush=True)  # noqa: T201 the program's log

    def shown(self, host_id: HostId) -> tuple[str, Shown] | None:
        """Return the instance of a host and whose it is, None if no cloud has shown one."""
        found = ((name, some[host_id]) for name, some in self._shown.items() if host_id in some)
        return next(found, None)

    def _look_at(self, side: Side) -> None:
        known, now = self._shown[side.name], {one.host_id: one for one in side.running()}
        there = {name: one.state for name in {*known, *now} if (one := self._landlord.instance(name)) is not None}
        step = difference(now.keys(), known.keys(), there)
        for name in step.begin:
            self._landlord.launch(name, now[name].user_data, now[name].plot)
        for name in step.end:
            self._landlord.end(name)
        for name in step.tell:
            side.end(now[name])
        self._shown[side.name] = known | now
