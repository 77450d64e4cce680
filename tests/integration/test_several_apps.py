"""Several Apps in one deployment: a real `spot-runner serve`, the simulated GitHub, and GitHub as settings make it."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.github.places import APP_ID, SECRET, MadeApp, Place, app_key, simulated_github, until
from tests.integration.control_plane import ControlPlane, a_control_plane
from workers.bootstrap.github import open_github
from workers.clock import SystemClock
from workers.domain.errors import Refused, Throttled, TryLater
from workers.domain.listed import Scope
from workers.domain.names import JobId
from workers.domain.pace import Ledger, Limits
from workers.github.app import AppGitHub
from workers.github.pace import LocalPace
from workers.reconcilers.replay import Replay
from workers.settings import ControlSettings

LABELS = ["spot-runner"]
STEPS = [("one", "true")]
POINTS = 60
# A registration costs five points, and what it takes to find out who may register, and a token, costs some more.
ONE_APPS_REGISTRATIONS = POINTS // 5


@dataclasses.dataclass(frozen=True)
class TwoApps(ControlPlane):
    """A control plane whose settings name two Apps, the secret of each of which is being changed."""

    github_url: str = ""
    second: int = 0

    def environment(self) -> dict[str, str]:
        return super().environment() | {
            "SPOT_RUNNER_GITHUB_URL": self.github_url,
            "SPOT_RUNNER_GITHUB_APP_ID": str(APP_ID),
            "SPOT_RUNNER_GITHUB_MORE_APPS": json.dumps({self.second: str(self.directory / "second.pem")}),
            "SPOT_RUNNER_GITHUB_POINTS_PER_MINUTE": "0",
        }

    def github(self) -> AppGitHub:
        """Return GitHub as a worker of this deployment asks it."""
        with pytest.MonkeyPatch.context() as patched:
            for name, value in self.environment().items():
                patched.setenv(name, value)
            return open_github(ControlSettings(), SystemClock(), "spot-runner-")

    def heard_of(self, job_id: int) -> list[int]:
        """Return which installations have told of a job."""
        store = self.store()
        try:
            return sorted({fact.installation_id for fact in store.facts_of(JobId(job_id))})
        finally:
            store.close()


@dataclasses.dataclass(frozen=True)
class Stage:
    """Alpha has the first App, beta the second one, and gamma one that is none of ours."""

    place: Place
    control: TwoApps
    second: MadeApp
    installations: dict[str, int]

    def start(self, owner: str) -> int:
        return self.place.control.start_jobs(f"{owner}/widgets", LABELS, STEPS)[0]

    def statuses_of(self, job_id: int) -> list[int]:
        """Return how each try to tell of a job was answered, once all were."""

        def answered() -> list[int]:
            mine = [one for one in self.place.control.deliveries() if one["job_id"] == job_id]
            return [one["status_code"] for one in mine] if all(one["delivered_at"] for one in mine) else []

        return until(answered, "somebody was told of it")


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    directory = tmp_path_factory.mktemp("control")
    made = a_control_plane(directory)
    hook = f"{made.public_url}/github"
    with simulated_github(tmp_path_factory.mktemp("github"), webhook_url=hook) as place:
        second, stranger = (place.another_app(name, hook) for name in ("Second Spot", "Strange Spot"))
        control = TwoApps(directory, made.public_port, made.host_port, place.url, second.id)
        (directory / "app.pem").write_text(app_key()[0])
        (directory / "second.pem").write_text(second.key)
        (directory / "secret").write_text(f"{SECRET}\nthe first's next\n{second.secret}\nthe second's next\n")
        installations = {
            "alpha": place.control.install("alpha"),
            "beta": place.install(second, "beta"),
            "gamma": place.install(stranger, "gamma"),
        }
        with control.serve():
            yield Stage(place, control, second, installations)
        assert place.control.violations() == []


def test_what_either_app_has_signed_counts_and_nothing_else_does(stage: Stage) -> None:
    jobs = {owner: stage.start(owner) for owner in stage.installations}
    assert {owner: stage.statuses_of(job_id) for owner, job_id in jobs.items()} == {
        "alpha": [202],
        "beta": [202],
        "gamma": [401],
    }
    assert {owner: stage.control.heard_of(job_id) for owner, job_id in jobs.items()} == {
        "alpha": [stage.installations["alpha"]],
        "beta": [stage.installations["beta"]],
        "gamma": [],
    }


def test_each_installation_is_asked_for_with_the_key_of_its_own_app(stage: Stage) -> None:
    github = stage.control.github()
    for owner in ("alpha", "beta"):
        here, where = stage.installations[owner], f"{owner}/widgets"
        job_id = stage.start(owner)
        seen = github.job(here, where, JobId(job_id))
        assert seen is not None
        registration = github.register(here, where, f"spot-runner-{owner}", LABELS)
        listed = github.lists.registrations(Scope(here, where))
        assert [one.github_id for one in listed] == [registration.github_id]
        github.deregister(here, where, registration.github_id)
    with pytest.raises(Refused, match="404"):
        github.register(stage.installations["gamma"], "gamma/widgets", "spot-runner-gamma", LABELS)


def test_each_app_lists_the_repositories_of_its_own_installations(stage: Stage) -> None:
    first, second = stage.place.control.install("both"), stage.place.install(stage.second, "both")
    for owner in ("alpha", "beta", "both", "gamma"):
        stage.start(owner)
    lists = stage.control.github().lists
    assert {app: sorted(lists.repositories(app)) for app in lists.apps} == {
        APP_ID: sorted([Scope(stage.installations["alpha"], "alpha/widgets"), Scope(first, "both/widgets")]),
        stage.second.id: sorted([Scope(stage.installations["beta"], "beta/widgets"), Scope(second, "both/widgets")]),
    }


def test_what_either_app_failed_to_tell_is_sent_again(stage: Stage) -> None:
    stage.place.control.set_shares(malformed=1.0)
    jobs = {owner: stage.start(owner) for owner in ("alpha", "beta")}
    assert all(status >= 400 for job_id in jobs.values() for status in stage.statuses_of(job_id))
    stage.place.control.set_shares()
    store = stage.control.store()
    replay = Replay(store, stage.control.github().lists, SystemClock())
    replay.look()
    for owner, job_id in jobs.items():
        until(lambda job_id=job_id: stage.control.heard_of(job_id), f"{owner} is heard of")  # type: ignore[misc]
        assert stage.control.heard_of(job_id) == [stage.installations[owner]]
    store.close()


def test_an_app_whose_key_was_taken_back_holds_the_other_ones_deliveries_up_for_nobody(stage: Stage) -> None:
    stage.place.control.set_shares(malformed=1.0)
    job_id = stage.start("beta")
    stage.statuses_of(job_id)
    stage.place.control.set_shares()
    github = AppGitHub(stage.place.url, {stage.second.id + 1000: app_key()[0], stage.second.id: stage.second.key})
    store = stage.control.store()
    replay = Replay(store, github.lists, SystemClock())
    with pytest.raises(Refused, match=f"of App {stage.second.id + 1000}.*401"):
        replay.look()
    until(lambda: stage.control.heard_of(job_id), "it is heard of all the same")
    store.close()


# ---------------------------------------------------------------- one account with two Apps


@pytest.fixture
def limited(tmp_path: Path) -> Iterator[Place]:
    """A GitHub that allows each App little."""
    with simulated_github(tmp_path, points_per_minute=POINTS) as place:
        yield place


def paced(place: Place, keys: dict[int, str]) -> AppGitHub:
    """Return GitHub at the pace of somebody who has been at work for long."""
    pace = LocalPace(Limits(points=POINTS, app_points=POINTS), time.time)
    pace.begin_from(Ledger(since=0.0))
    return AppGitHub(place.url, keys, pace)


def registered(github: AppGitHub, place: Place, names: str) -> int:
    """Register until somebody says that this was enough, and return how many there are."""
    for number in range(10 * ONE_APPS_REGISTRATIONS):
        try:
            github.register(place.installation, place.repository, f"{names}-{number}", LABELS)
        except Throttled:
            return number
    raise AssertionError("nobody minds the limits")


def test_each_app_of_an_account_adds_its_own_budget(limited: Place) -> None:
    alone = registered(paced(limited, {APP_ID: app_key()[0]}), limited, "alone")
    assert ONE_APPS_REGISTRATIONS - 2 <= alone <= ONE_APPS_REGISTRATIONS
    others = [limited.another_app(name, "http://127.0.0.1:9") for name in ("Second Spot", "Third Spot")]
    for app in others:
        limited.install(app, limited.owner)
    together = registered(paced(limited, {app.id: app.key for app in others}), limited, "together")
    assert 2 * (ONE_APPS_REGISTRATIONS - 2) <= together <= 2 * ONE_APPS_REGISTRATIONS
    assert not any(limited.control.refused().values()), "GitHub had to refuse nothing"


def test_an_app_that_is_removed_leaves_its_account_to_the_other_one(tmp_path: Path) -> None:
    with simulated_github(tmp_path) as place:
        second = place.another_app("Second Spot", "http://127.0.0.1:9")
        place.install(second, "both")
        first = place.control.install("both")  # the latest, so the one that is removed below
        github = AppGitHub(place.url, {APP_ID: app_key()[0], second.id: second.key})
        place.control.start_jobs("both/widgets", LABELS, STEPS)
        assert github.register(first, "both/widgets", "spot-runner-a", LABELS)
        place.control.change_installation("both", "remove")
        # The first App's token is not taken any more, and there is no other one.
        with pytest.raises(TryLater, match="another App may be"):
            github.register(first, "both/widgets", "spot-runner-b", LABELS)
        assert github.register(first, "both/widgets", "spot-runner-b", LABELS)
