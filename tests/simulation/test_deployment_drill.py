"""The drill of a deployment, against the whole control plane on a fake clock: real decisions, its own jobs."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.world import World
from workers.domain.errors import BadInput, Refused, Unreachable
from workers.domain.host import Host
from workers.domain.names import HostId
from workers.domain.runner import RunnerState
from workers.rehearsal.drill.deployment import DeploymentDrill, Order, earlier


@dataclass
class Cloud:
    """ports.Interrupter of the world's cloud."""

    world: World
    without_notice: bool = False
    taken: list[HostId] = field(default_factory=list)

    def take_back(self, host: Host, notice: timedelta) -> None:
        self.taken.append(host.id)
        self.world.cloud.take_back(host.id, timedelta() if self.without_notice else notice)


class Site:
    """A deployment at work: jobs come all the time."""

    def __init__(self, *, jobs: int = 2, without_notice: bool = False, ready_hosts: int = 2) -> None:
        self.world = World(ready_hosts=ready_hosts)
        self.cloud = Cloud(self.world, without_notice)
        self.said: list[str] = []
        self._jobs, self._runs = jobs, 0

    def pause(self, seconds: float) -> None:
        for _ in range(max(1, round(seconds))):
            waiting = [job for job in self.world.github.jobs.values() if job.status != "completed"]
            if len(waiting) < self._jobs:
                self._runs += 1
                self.world.github.queue(self._runs)
            self.world.tick()

    def drill(self, interruptions: list[dict[str, Any]] | None = None) -> DeploymentDrill:
        store, clock = self.world.store, self.world.clock
        before = interruptions or []
        return DeploymentDrill(store, {"fake": self.cloud}, clock, self.pause, self.said.append, before)


def test_every_job_of_every_host_that_was_taken_back_survives(tmp_path: Path) -> None:
    site, file = Site(), tmp_path / "report.json"
    report = site.drill().play(Order(3, (60.0, 120.0), seed=7, json=file))
    assert (report["count"], report["survived"], report["rerun"], report["lost"]) == (3, 3, 0, 0)
    assert report["leftovers"] == []
    moved = {move["source"] for move in report["parts"]["moves"] if move["target"]}
    assert moved & set(site.cloud.taken), "at least one job was moved and not just waited for"
    assert report["notice_to_commit_s"]["max"] is not None
    assert json.loads(file.read_text()) == report


def test_what_a_deployment_cannot_know_is_null_and_not_zero() -> None:
    report = Site().drill().play(Order(1, (60.0, 60.0)))
    assert (report["double_runs"], report["steps_rerun"]) == (None, None)
    assert set(report["guest_gap_ms"].values()) == {None}
    assert set(report["connection"].values()) == {None}


def test_a_job_whose_host_dies_at_once_is_told_as_run_again() -> None:
    site = Site(jobs=1, without_notice=True)
    report = site.drill().play(Order(1, (60.0, 60.0), seed=1))
    assert (report["survived"], report["rerun"], report["lost"]) == (0, 1, 0), site.said


def test_a_stopped_drill_goes_on_where_it_was(tmp_path: Path) -> None:
    site, file = Site(), tmp_path / "report.json"
    site.drill().play(Order(1, (60.0, 60.0), json=file))
    interruptions, _moves = earlier(file, 0)
    report = site.drill(interruptions).play(Order(2, (60.0, 60.0), json=file))
    assert [one["number"] for one in report["parts"]["interruptions"]] == [0, 1]
    assert len(site.cloud.taken) == 2


def test_another_drills_report_is_not_gone_on_from(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    file.write_text(json.dumps({"seed": 3, "parts": {"interruptions": [], "jobs": []}}))
    with pytest.raises(BadInput, match="another drill's report"):
        earlier(file, 3)


def test_a_deployment_without_work_is_not_drilled() -> None:
    site = Site(jobs=0)
    with pytest.raises(Unreachable, match="drill a deployment that is at work"):
        site.drill().play(Order(1, (60.0, 60.0)))
    assert not site.cloud.taken


def test_a_cloud_that_takes_nothing_back_is_named() -> None:
    site = Site()
    drill = DeploymentDrill(site.world.store, {}, site.world.clock, site.pause, site.said.append)
    with pytest.raises(BadInput, match="cloud 'fake'"):
        drill.play(Order(1, (60.0, 60.0)))


def test_a_notice_that_the_cloud_does_not_give_ends_the_drill_before_anything_happens() -> None:
    class Choosy:
        def take_back(self, host: Host, notice: timedelta) -> None:
            raise Refused(f"no such notice for {host.id}: {notice}")

    site = Site()
    drill = DeploymentDrill(site.world.store, {"fake": Choosy()}, site.world.clock, site.pause, site.said.append)
    with pytest.raises(Refused, match="no such notice"):
        drill.play(Order(1, (5.0, 5.0)))
    assert all(runner.state is not RunnerState.STOPPING for runner in site.world.store.runners.open())
