"""The steps of `action.yml` as a job runs them: inside a real guest, before and after a real move."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from tests.e2e.engine_rig import END_OF_MOVE, Rig, eventually, runner_package
from tests.e2e.scripted_guest import HOLD_LIMIT_S, scripted_package
from workers.domain.messages import BootOrder, StartOrder
from workers.domain.migration import MigrationPhase
from workers.domain.whereabouts import Machine, Whereabouts

pytestmark = [pytest.mark.root, pytest.mark.guest, pytest.mark.timeout(600)]
ACTION = yaml.safe_load((Path(__file__).parents[2] / "action.yml").read_text())
STEPS = {step["id"]: step["run"] for step in ACTION["runs"]["steps"]}
# One dollar a second, so that a few seconds are seen in the sum.
SOURCE = Whereabouts("aws", Machine("eu-central-1", "eu-central-1b", "c7i.2xlarge", "spot", 7200.0), 3600.0)
TARGET = Whereabouts("hetzner", Machine(region="fsn1", instance_type="cax31", lifecycle="on-demand"), 3600.0)

# It ends with 0, or with the line of the first thing that was not as it should be.
SCRIPT = """
import json, os, subprocess, sys, tempfile, time, urllib.request
told = json.loads('''TOLD''')
def step(name, **inputs):
    folder = tempfile.mkdtemp()
    files = {"GITHUB_OUTPUT": folder + "/output", "GITHUB_STEP_SUMMARY": folder + "/summary"}
    env = {"PATH": os.environ["PATH"], "ENDPOINT": told["endpoint"], **files, **inputs}
    ran = subprocess.run(["bash", "-eo", "pipefail", "-c", told["steps"][name]], env=env, timeout=120)
    lines = open(folder + "/output").read().splitlines()
    return ran.returncode, dict(line.split("=", 1) for line in lines), folder + "/summary"
def must(is_so):
    if not is_so:
        os._exit(min(255, sys._getframe(1).f_lineno))
ask = {"SUMMARY": "true", "PAUSE_LIMIT": ""}
status, before, summary = step("ask", **ask)
must(status == 0)
must({name: before[name] for name in told["before"]} == told["before"])
must(before["pause-ms"] == "")
must(float(before["restored-in-ms"]) > 0)
must(float(before["cost-usd"]) > 0)
must("| zone | eu-central-1b |" in open(summary).read())
status, held, _ = step("hold", HOLD_SECONDS="1", RELEASE="false")
must((status, held) == (0, {"held-seconds": "1"}))
for _ in range(1200):
    if json.load(urllib.request.urlopen(told["endpoint"]))["moves"] == 1:
        break
    time.sleep(0.1)
status, after, summary = step("ask", **ask)
must(status == 0)
must({name: after[name] for name in told["after"]} == told["after"])
must(float(after["pause-ms"]) > 0)
must(float(after["pause-ms"]) < 60000)
must(after["restored-in-ms"] == before["restored-in-ms"])
must(float(after["cost-usd"]) > float(before["cost-usd"]))
must("| zone | not known |" in open(summary).read())
must(step("ask", SUMMARY="false", PAUSE_LIMIT="0")[0] == 1)
must(step("ask", SUMMARY="false", PAUSE_LIMIT="60000")[0] == 0)
"""


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    rig = Rig(scripted_package(runner_package()), ("a", "b"))
    yield rig
    rig.end()


@pytest.fixture
def order(rig: Rig) -> Iterator[BootOrder]:
    order = replace(rig.order(300), hold_limit_s=HOLD_LIMIT_S, whereabouts=SOURCE)
    rig["a"].inside.run(rig["a"].engine.boot(order))
    yield order
    rig.settle(order.runner_id)
    for host in rig.hosts.values():
        report = host.report(order.runner_id)
        host.inside.run(host.engine.stop(order.runner_id, report.epoch if report else 9))


def facts(rig: Rig, order: BootOrder, name: str, where: Whereabouts, moves: int) -> dict[str, str]:
    """Return what the action must say of this host."""
    return {
        "runner-id": order.runner_id,
        "host-id": rig[name].id,
        "provider": where.provider or "",
        "region": where.machine.region or "",
        "zone": where.machine.zone or "",
        "instance-type": where.machine.instance_type or "",
        "lifecycle": where.machine.lifecycle or "",
        "package": order.package,
        "migrations": str(moves),
    }


def test_a_job_learns_what_happened_to_it_before_and_after_a_move(rig: Rig, order: BootOrder) -> None:
    told = {
        "endpoint": ACTION["inputs"]["endpoint"]["default"],
        "steps": STEPS,
        "before": facts(rig, order, "a", SOURCE, 0),
        "after": facts(rig, order, "b", TARGET, 1),
    }
    script = SCRIPT.replace("'''TOLD'''", repr(json.dumps(told)))
    rig["a"].inside.run(rig["a"].engine.start_runner(order.runner_id, StartOrder(1, script)))

    def asks_to_stay() -> bool:
        report = rig["a"].report(order.runner_id)
        assert report is not None
        assert report.exit_code is None, f"line {report.exit_code} of the script"
        return report.hold is not None

    eventually(asks_to_stay, "the first half is over: the job asks not to be moved")
    row = rig.begin(replace(order, whereabouts=TARGET), "a", "b")
    assert rig.rows.wait(row.id, *END_OF_MOVE).phase is MigrationPhase.FINISHED
    code = rig["b"].wait_ended(order.runner_id)
    assert code == 0, f"line {code} of the script: {script.splitlines()[(code or 1) - 1]}"
