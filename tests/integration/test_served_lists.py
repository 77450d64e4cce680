"""The lists of who is served, from the settings as far as they must go: the receiver, jobs, and what is asked for."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.contract.github.places import APP_ID, Place, app_key, simulated_github
from tests.contract.store_rows import a_delivery
from tests.integration.control_plane import ControlPlane, a_control_plane
from tests.integration.listeners import PACKAGE, signed
from workers.app import CONTROL
from workers.bootstrap.control import open_rounds
from workers.clock import SystemClock
from workers.domain.names import JobId
from workers.rehearsal.github.contract import published
from workers.settings import ControlSettings
from workers.store.repository import open_store

QUEUED = next(
    one for one in published("deliveries")["workflow_job"] if one["action"] == "queued" and "installation" in one
)


@dataclasses.dataclass(frozen=True)
class Picky(ControlPlane):
    """A control plane that serves everybody but one account."""

    denied: str = ""

    def environment(self) -> dict[str, str]:
        return super().environment() | {"SPOT_RUNNER_INSTALLATIONS_DENIED": f'["{self.denied}"]'}


@pytest.mark.parametrize(("denied", "facts"), [("codertocat", 0), ("somebody-else", 1)])
def test_a_receiver_is_told_whom_it_serves(tmp_path: Path, denied: str, facts: int) -> None:
    made = a_control_plane(tmp_path)
    control = Picky(tmp_path, made.public_port, made.host_port, denied)
    with control.serve():
        body, headers = signed("workflow_job", QUEUED, "guid-1")
        answer = httpx.post(f"{control.public_url}/github", content=body, headers=headers, trust_env=False)
    assert answer.status_code == 202
    store = control.store()
    assert len(store.facts_of(JobId(QUEUED["workflow_job"]["id"]))) == facts
    store.close()


@pytest.fixture(scope="module")
def github(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with simulated_github(tmp_path_factory.mktemp("github")) as place:
        place.control.install("hexa")
        yield place


@pytest.fixture
def settings(tmp_path: Path, github: Place) -> ControlSettings:
    (tmp_path / "app.pem").write_text(app_key()[0])
    return ControlSettings(
        home=tmp_path / "home",
        database_url=f"sqlite:///{tmp_path / 'store.sqlite'}",
        redis_url=f"redis+socket://{tmp_path / 'nobody.sock'}",
        github_url=github.url,
        github_app_id=APP_ID,
        github_key_file=tmp_path / "app.pem",
        github_points_per_minute=0,
        market_url="http://127.0.0.1:9",
        package=PACKAGE,
    )


@pytest.mark.parametrize(
    ("lists", "is_refused"),
    [
        ({"installations_denied": ("octo",)}, True),
        ({"installations_allowed": ("hexa",)}, True),
        ({"installations_allowed": ("octo",)}, False),
    ],
)
def test_a_worker_gives_no_runner_to_whom_it_does_not_serve(
    settings: ControlSettings, lists: dict[str, tuple[str, ...]], *, is_refused: bool
) -> None:
    delivery = a_delivery("guid-1")
    assert delivery.fact is not None
    job_id = delivery.fact.job_id
    store = open_store(settings.database, SystemClock())
    store.write_deliveries([delivery])
    rounds = open_rounds(settings.model_copy(update=lists))
    rounds.sweep(CONTROL)
    rounds.close()
    row = store.jobs.get(job_id)
    store.close()
    assert row is not None
    assert ("of those who are" in str(row.unserved)) is is_refused


def test_a_worker_does_not_look_for_jobs_of_whom_it_does_not_serve(settings: ControlSettings, github: Place) -> None:
    steps = [("one", "true")]
    ours, theirs = (
        JobId(github.control.start_jobs(f"{account}/widgets", ["spot-runner"], steps)[0])
        for account in (github.owner, "hexa")
    )
    store = open_store(settings.database, SystemClock())
    rounds = open_rounds(settings.model_copy(update={"installations_denied": ("hexa",)}))
    rounds.sweep(CONTROL)
    rounds.close()
    found = {job_id: len(store.facts_of(job_id)) for job_id in (ours, theirs)}
    store.close()
    assert found == {ours: 1, theirs: 0}
