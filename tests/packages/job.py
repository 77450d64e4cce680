"""One job in one guest of a package: a host's engine boots it, and a simulated GitHub gives its runner the job.

host namespace: Engine ─▶ guest ─ NAT ─▶ internet namespace: name server, simulated GitHub
"""

from __future__ import annotations

import base64
import json
import mmap
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from tests.contract.github.places import APP_ID, ROOT, WAIT_S, app_key, simulator_command, until
from tests.e2e.engine_rig import EngineHost, Rig
from tests.integration.wires import Place
from tests.packages.inputs import NAMESERVER as INTERNET
from tests.packages.names import name_server
from tests.packages.questions import MARKER
from workers.domain.messages import BootOrder, StartOrder
from workers.domain.overlay import GuestNetwork
from workers.github.app import AppGitHub
from workers.host.packages import Unpacked
from workers.rehearsal.github import SimulatorClient

PUBLIC: Final = "198.18.0.16"
PORT: Final = 7000
GITHUB: Final = "github.tried.example"
REPOSITORY: Final = "octo-org/widgets"
LABELS: Final = ("spot-runner",)
NUMBER: Final = 740
# Under software emulation beside other work; an emulated Docker takes a minute to come up.
BOOT_LIMIT_S: Final = 300.0
JOB_LIMIT_S: Final = 1800.0
LOOK_INTERVAL_S: Final = 1.0
PIECE_OCTETS: Final = 1024
# Nothing of GitHub's own patience is tried here.
PATIENCE_S: Final = 3600.0


@dataclass(frozen=True)
class Outcome:
    """What came of the job."""

    conclusion: str
    log: tuple[str, ...]
    exit_code: int | None
    restored_s: float
    job_s: float
    """From the runner's start to the job's end."""
    names_asked: int
    """How often the guest asked for an address of a name."""
    on_disk: tuple[str, ...]
    """What stands in the file that is the guest's disk on its host: `marker`, `secret`, `configuration`."""


@dataclass(frozen=True)
class GitHub:
    """A simulated GitHub in a namespace, asked from inside it."""

    place: Place
    control: SimulatorClient
    port: AppGitHub
    installation: int

    def start_job(self, steps: Sequence[tuple[str, str]]) -> int:
        return int(self.place.call(self.control.start_jobs, REPOSITORY, LABELS, steps)[0])

    def register(self, runner: str) -> str:
        return self.place.call(self.port.register, self.installation, REPOSITORY, runner, LABELS).jit_config

    def job(self, job_id: int, after: int = 0) -> dict[str, Any]:
        return self.place.call(self.control.job, job_id, after)


@contextmanager
def github_at(place: Place, directory: Path) -> Iterator[GitHub]:
    """Run a simulated GitHub in a namespace; guests find it by its name."""
    listen = f"{INTERNET}:{PORT}"
    limits: dict[str, float | str] = {
        "url": f"http://{GITHUB}:{PORT}",
        "idle_seconds": PATIENCE_S,
        "lock_seconds": PATIENCE_S,
    }
    # Nobody hears its deliveries: there is no control plane here.
    command = simulator_command(directory, listen, webhook_url=f"http://{INTERNET}:9/", **limits)
    with (directory / "simulator.log").open("wb") as log:
        running = subprocess.Popen(["ip", "netns", "exec", place.name, *command], stdout=log, stderr=log, cwd=ROOT)
    control = SimulatorClient(f"http://{listen}")
    try:
        until(lambda: place.call(control.is_up) or running.poll() is not None, "the simulator answers")
        assert running.poll() is None, (directory / "simulator.log").read_text()
        installation = place.call(control.install, REPOSITORY.partition("/")[0])
        yield GitHub(place, control, AppGitHub(f"http://{listen}", {APP_ID: app_key()[0]}), installation)
    finally:
        control.close()
        running.send_signal(signal.SIGTERM)
        running.wait(WAIT_S)


def run_job(package: Unpacked, steps: Sequence[tuple[str, str]], directory: Path) -> Outcome:
    """Boot one guest of the package and let its runner take one job of these steps; nothing is left of either."""
    with ExitStack() as ends:
        rig = Rig(package, ("a",))
        ends.callback(rig.end)
        rig._site.plug(rig["a"].place, "eth1", f"internet {PUBLIC}/24")
        internet = rig._site.add("net", eth0=f"internet {INTERNET}/24")
        queries = ends.enter_context(name_server(internet, INTERNET, GITHUB))
        github = ends.enter_context(github_at(internet, directory))
        order = replace(rig.order(NUMBER), network=GuestNetwork.NAT)
        outcome = _run(rig["a"], order, github, steps)
        return replace(outcome, names_asked=len(queries))


def _run(host: EngineHost, order: BootOrder, github: GitHub, steps: Sequence[tuple[str, str]]) -> Outcome:
    began = time.monotonic()
    host.inside.run(host.engine.boot(order), BOOT_LIMIT_S)
    restored_s = time.monotonic() - began
    job_id, configuration = github.start_job(steps), github.register(order.runner_id)
    began = time.monotonic()
    host.inside.run(host.engine.start_runner(order.runner_id, StartOrder(order.epoch, configuration)))
    while not _is_over(host, order, github, job_id):
        assert time.monotonic() - began < JOB_LIMIT_S, f"the job has not ended within {JOB_LIMIT_S} s"
        time.sleep(LOOK_INTERVAL_S)
    job_s = time.monotonic() - began
    exit_code = host.wait_ended(order.runner_id)
    job, overlay = github.job(job_id), host.microvm(order.runner_id).overlay
    log = tuple(str(line["text"]) for line in job["log"])
    marks = {"marker": MARKER, "secret": secret_of(configuration), "configuration": configuration}
    on_disk = tuple(name for name, text in marks.items() if stands_in(overlay, text))
    host.inside.run(host.engine.stop(order.runner_id, order.epoch))
    return Outcome(str(job["conclusion"]), log, exit_code, restored_s, job_s, 0, on_disk)


def _is_over(host: EngineHost, order: BootOrder, github: GitHub, job_id: int) -> bool:
    """Say whether the job has ended, or its runner, which then ends no job any more."""
    report = host.report(order.runner_id)
    has_ended = report is None or report.exit_code is not None
    return has_ended or github.job(job_id, after=1 << 30)["status"] == "completed"


def secret_of(configuration: str) -> str:
    """Return the secret in a just-in-time configuration."""
    files = json.loads(base64.b64decode(configuration))
    return str(json.loads(base64.b64decode(files[".credentials"]))["Data"]["Secret"])


def stands_in(file: Path, text: str) -> bool:
    """Say whether a text stands in a file; one that is longer than a block of a disk may lie there in pieces."""
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(text[:PIECE_OCTETS].encode()) >= 0
