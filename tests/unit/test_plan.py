"""`spot-runner plan` as a person runs it: what is printed, what is refused, and that nothing is written."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tests.contract.store_rows import TERMS, a_job
from workers.bootstrap.offers import OffersFile, read_offers
from workers.cli import app
from workers.clock import SystemClock
from workers.domain.errors import BadInput
from workers.domain.job import JobState
from workers.domain.names import JobId
from workers.domain.runner import Shape
from workers.settings import ControlSettings
from workers.store.repository import open_store

OFFER = {
    "cloud": "local", "region": "here", "zone": "z-1", "instance_type": "large", "market": "spot", "usd_per_hour": 0.1,
    "vcpus": 8, "memory_mib": 16384, "disk_mib": 65536,
}  # fmt: skip
POOL = '[[pools]]\nname = "default"\n'


def an_offer(**fields: object) -> dict[str, object]:
    return OFFER | fields


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "pools.toml").write_text(POOL)
    settings = ControlSettings(home=tmp_path)
    terms = replace(TERMS, pool="default", shape=Shape(4, 4096, 4096))
    queued = replace(a_job(), state=JobState.QUEUED, terms=terms, unserved=None, runner_id=None)
    with closing(open_store(settings.database, SystemClock())) as store:
        for number in (1, 2, 3):
            assert store.jobs.add(replace(queued, id=JobId(number)))
    return tmp_path


def plan(home: Path, *arguments: str, offers: list[dict[str, object]] | None = None, **told: str) -> Result:
    settings = {
        "SPOT_RUNNER_HOME": str(home),
        "SPOT_RUNNER_POOLS_FILE": str(home / "pools.toml"),
        "SPOT_RUNNER_MARKET_URL": "http://127.0.0.1:1",
        "SPOT_RUNNER_CURRENCY": "USD",
        **told,
    }
    if offers is not None:
        (home / "offers.json").write_text(json.dumps(offers))
        settings["SPOT_RUNNER_OFFERS_FILE"] = str(home / "offers.json")
    return CliRunner().invoke(app, ["plan", *arguments], env=settings)


def test_it_says_what_would_be_bought_and_why(home: Path) -> None:
    found = plan(home, offers=[an_offer(), an_offer(zone="z-2"), an_offer(zone="z-3"), an_offer(cloud="aws", zone="a")])
    assert found.exit_code == 0, found.output
    assert found.stdout.splitlines() == [
        "waiting: 3 jobs for which a runner is to be made",
        "hosts: 0 take runners, 0 are coming",
        "offers: 3",
        "buy 1 x large in z-1 of local, spot at 0.1000 USD an hour, for pool default: jobs wait",
        "buy 1 x large in z-2 of local, spot at 0.1000 USD an hour, for pool default: jobs wait",
        (
            "buy 1 x large in z-3 of local, spot at 0.1000 USD an hour, for pool default: "
            "room in case large in z-2 of local is taken back"
        ),
        "in all: 3 hosts, 0.3000 USD an hour",
    ]


def test_a_command_that_only_decides_loads_no_colours_and_no_drivers_of_a_database_that_it_does_not_use() -> None:
    heavy = "('structlog', 'rich.traceback', 'sqlalchemy.dialects.postgresql', 'alembic', 'boto3', 'celery', 'flask')"
    looked = f"import sys, workers.bootstrap.plan; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", looked], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout.strip() == "[]"


def test_machines_read_the_same(home: Path) -> None:
    found: dict[str, Any] = json.loads(plan(home, "--json", offers=[an_offer()]).stdout)
    assert (found["waiting"], found["hosts"], found["offers"]) == (3, {"ready": 0, "coming": 0}, 1)
    assert [(one["offer"]["zone"], one["because"]) for one in found["orders"]] == [("z-1", "jobs wait")] * 2
    assert {one["size"]["vcpus"] for one in found["orders"]} == {8}
    assert found["missing"] == ["no offer elsewhere has room for what runs on large in z-1 of local"]


def test_without_offers_the_cloud_chooses(home: Path) -> None:
    assert "buy 2 x a host that local chooses, for pool default: jobs wait" in plan(home).stdout


def test_a_budget_is_counted_by_the_prices_of_offers(home: Path) -> None:
    budget = 'budget = { per_day = 0.03, currency = "USD" }\n'
    (home / "pools.toml").write_text(POOL + budget)
    found = plan(home, offers=[an_offer()], SPOT_RUNNER_HOST_PRICE="9")
    assert "in all: 1 hosts, 0.1000 USD an hour" in found.stdout
    assert "missing: no offer will do for pool default (any class) within its budget" in found.stdout
    (home / "pools.toml").write_text(POOL + budget.replace("0.03", "0.01"))
    found = plan(home, offers=[an_offer()], SPOT_RUNNER_HOST_PRICE="9")
    assert "refused: pool default has spent its 0.01 USD of today, but for less than another host costs" in found.stdout


def test_nothing_is_written(home: Path) -> None:
    before = rows(home)
    plan(home, offers=[an_offer()])
    assert rows(home) == before


def rows(home: Path) -> object:
    with closing(open_store(ControlSettings(home=home).database, SystemClock())) as store:
        return [list(store.hosts.open()), list(store.jobs.open()), list(store.runners.open())]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "the file: Invalid JSON"),
        (
            json.dumps([{key: told for key, told in OFFER.items() if key != "usd_per_hour"}]),
            "0.usd_per_hour: Field req",
        ),
        (json.dumps([an_offer(usd_per_hour=0)]), "0.usd_per_hour: Input should be greater than 0"),
        (json.dumps([an_offer(), an_offer(market="free")]), "1.market: Input should be 'spot' or 'on-demand'"),
        (
            json.dumps([an_offer(instance_type="m8g.large", architecture="arm64")]),
            "0 (m8g.large).architecture: arm64 is not built yet; take x86_64, or remove the offer",
        ),
        (json.dumps([an_offer(colour="red")]), "0.colour: Extra inputs are not permitted"),
    ],
)
def test_a_file_that_is_not_right_is_refused_in_one_sentence(tmp_path: Path, content: str, sentence: str) -> None:
    path = tmp_path / "offers.json"
    path.write_text(content)
    with pytest.raises(BadInput) as caught:
        read_offers(path)
    assert str(caught.value).startswith(f"{path}: {sentence}")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"offers\.json: No such file or directory; name a file in SPOT_RUNNER_OFFERS"):
        OffersFile(tmp_path / "offers.json")


def test_a_file_is_read_again_when_it_is_changed_and_a_wrong_one_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "offers.json"
    write: Callable[[object], int] = lambda told: path.write_text(json.dumps(told))  # noqa: E731 - it is said three times
    write([an_offer()])
    seller = OffersFile(path)
    assert len(seller.offers()) == 1
    write([an_offer(), an_offer(zone="z-2")])
    assert len(seller.offers()) == 2
    write([an_offer(usd_per_hour="much")])
    assert len(seller.offers()) == 2
