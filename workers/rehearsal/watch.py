"""What every play does: set the stage, show what is new, notice a dead program, and give up when it takes too long."""

from __future__ import annotations

import threading
import time
from typing import Final

from workers.domain.errors import Unreachable
from workers.domain.events import Happening
from workers.rehearsal.follow import Follower, sentence, told
from workers.rehearsal.screen import Bar, Screen
from workers.rehearsal.stage import Stage

LOOK_INTERVAL_S: Final = 0.2
# A fresh host has to be made, has to register and to verify and unpack its package.
HOSTS_READY_LIMIT_S: Final = 180.0


def measured_cold_boot(stage: Stage, screen: Screen) -> float:
    """Boot the guest without its snapshot; return how many seconds that took."""
    with screen.waiting("booting the guest without its snapshot, to compare"):
        stage.places.state.mkdir(parents=True)
        taken_s = stage.kit.measure_cold_boot(stage.places.state)
    screen.line(f"a cold boot of the guest takes {taken_s:.1f} s")
    return taken_s


class Watch:
    """Watches one play from its beginning."""

    follower: Follower

    def __init__(self, stage: Stage, screen: Screen, *, tells_events: bool = True) -> None:
        self.stage = stage
        self.screen = screen
        self.tells_events = tells_events
        self._never = threading.Event()
        """Never set: what is waited for is seen by looking."""

    def open(self, hosts: int, *, with_window: bool = False) -> None:
        """Start everything and wait for so many hosts. Raises `Unreachable` if something does not come in time."""
        stage, screen, kit = self.stage, self.screen, self.stage.kit
        screen.line(sentence("guests run on {accel}: " + kit.reason, accel=kit.acceleration))
        with screen.waiting("laying the network") as bar:
            stage.places.state.mkdir(parents=True, exist_ok=True)
            stage.lay_network(with_window=with_window)
            bar.show(f"opening the internet: GitHub, git, echo, {stage.sellers}")
            stage.open_internet()
            bar.show("starting redis, relay, serve, worker")
            stage.start_service()
            screen.line(f"control plane, relay, {stage.sellers} and GitHub simulator are up")
            self.follower = Follower(stage.store)
            self._wait_hosts(hosts, bar)

    def look_once(self, end: float, so_far: str) -> None:
        """Show what is new, and give up if it takes too long or a program has died."""
        self.stage.processes.check()
        self.show_events()
        if time.monotonic() > end:
            raise Unreachable(f"no end in sight, {so_far}; see the logs in {self.stage.places.logs}")
        self.pause(LOOK_INTERVAL_S)

    def pause(self, seconds: float) -> None:
        """Wait before the next look."""
        self._never.wait(seconds)

    def show_events(self) -> None:
        """Show what the timeline has that was not shown yet."""
        for event in self.follower.fresh():
            if self.tells_events:
                self.screen.line(told(event), event.at.timestamp())

    def _wait_hosts(self, wanted: int, bar: Bar) -> None:
        end = time.monotonic() + HOSTS_READY_LIMIT_S
        while (ready := self.follower.count(Happening.HOST_READY)) < wanted:
            bar.show(f"waiting for hosts: {ready} of {wanted} ready", ready, wanted)
            self.look_once(end, f"{ready} of {wanted} hosts are ready")
