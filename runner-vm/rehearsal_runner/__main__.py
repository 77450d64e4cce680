"""Take one job, run it, report it: `python3 -m rehearsal_runner`.

Exit status: 0 when the job's conclusion was reported, 1 when the job was lost, 2 when the configuration was of no use.
"""

from __future__ import annotations

import os
import secrets
import signal
import sys
import threading
from pathlib import Path
from typing import Final

from rehearsal_runner.broker import PATIENCE_S, Broker, Json, Refused, Stopped, Unanswered
from rehearsal_runner.configuration import BadConfiguration, Configuration, taken
from rehearsal_runner.lock import Lock, Loss
from rehearsal_runner.steps import TRACKING, Steps
from rehearsal_runner.stream import Stream

# Of this program, as the packages that hold it name it; GitHub gives no job to one that is too old.
VERSION: Final = "0.1.0"
# A registration that has no job is removed by GitHub within minutes, so no runner waits for its broker longer.
OFFER_PATIENCE_S: Final = 600.0
# Beyond the broker's own limit for a long poll.
OFFER_ANSWER_LIMIT_S: Final = 65.0
NOT_OURS: Final = 404

DONE: Final = 0
LOST: Final = 1
UNUSABLE: Final = 2


def main() -> int:
    """Run until the one job is over."""
    try:
        configuration = taken()
    except BadConfiguration as error:
        return told(str(error), UNUSABLE)
    broker, loss = Broker(configuration, threading.Event()), Loss()
    try:
        order = take_job(broker, configuration.name)
        lock = Lock(Broker(configuration, loss.stopping), order["job_id"], order["lock_seconds"], loss)
        lock.start()
        conclusion = run_job(configuration, order, loss)
        # Until this is answered the lock is kept; that the lock is refused meanwhile may just mean that this was heard.
        broker.call("POST", f"/_runner/jobs/{order['job_id']}/finish", {"conclusion": conclusion})
    except (Refused, Unanswered, Stopped) as error:
        return told(f"lost: {loss.reason or error}", LOST)
    return told(f"job {order['job_id']} is over: {conclusion}", DONE)


def take_job(broker: Broker, name: str) -> Json:
    """Open a session and wait until a job was offered and taken."""
    session = f"/_runner/sessions/{secrets.token_hex(16)}"
    answer = broker.call("PUT", session, {"version": VERSION}, patience_s=OFFER_PATIENCE_S)
    told(f"{name} waits for a job", DONE)
    wait_s = answer["poll_seconds"] if answer else 0
    while True:
        offer = broker.call(
            "GET",
            f"{session}/offer?wait={wait_s}",
            patience_s=OFFER_PATIENCE_S,
            answer_limit_s=OFFER_ANSWER_LIMIT_S,
        )
        order = offer and acquired(broker, offer["job_id"])
        if order:
            told(f"{name} runs job {order['job_id']} of {order['repository']}", DONE)
            return order


def acquired(broker: Broker, job_id: int) -> Json | None:
    """Take an offered job; None if it was given to another meanwhile."""
    try:
        return broker.call("POST", f"/_runner/jobs/{job_id}/acquire", {})
    except Refused as error:
        if error.status == NOT_OURS:
            return None
        raise


def run_job(configuration: Configuration, order: Json, loss: Loss) -> str:
    """Run the steps; the first failure skips the rest. Raises `Stopped` if the job was lost meanwhile."""
    patience_s = max(order["lock_seconds"], PATIENCE_S)
    stream = Stream(Broker(configuration, loss.stopping), order["job_id"], patience_s)
    environment = environment_for(configuration, order)
    steps = Steps(environment, Path(environment["GITHUB_WORKSPACE"]), stream)
    stream.start()
    signal.signal(signal.SIGTERM, lambda *_: loss.report("this program was told to stop"))
    steps.watch(loss.stopping)
    conclusion = "success"
    try:
        for step in order["steps"]:
            conclusion = steps.run(step["number"], step["run"])
            if steps.is_stopped or conclusion != "success":
                break
    finally:
        steps.end()
    if loss.reason is not None:
        raise Stopped
    stream.close()
    return conclusion


def environment_for(configuration: Configuration, order: Json) -> dict[str, str]:
    """Return what steps find in their environment, and make the folders that it names."""
    repository = order["repository"]
    work = Path.home() / configuration.work_folder
    workspace = work / repository.split("/")[-1] / repository.split("/")[-1]
    scratch = work / "_temp"
    for folder in (workspace, scratch):
        folder.mkdir(parents=True, exist_ok=True)
    return {
        **os.environ,
        "CI": "true",
        "GITHUB_ACTIONS": "true",
        "GITHUB_JOB": order["name"],
        "GITHUB_REPOSITORY": repository,
        "GITHUB_RUN_ATTEMPT": str(order["run_attempt"]),
        "GITHUB_RUN_ID": str(order["run_id"]),
        "GITHUB_WORKSPACE": str(workspace),
        "RUNNER_ARCH": "X64",
        "RUNNER_NAME": configuration.name,
        "RUNNER_OS": "Linux",
        "RUNNER_TEMP": str(scratch),
        "RUNNER_WORKSPACE": str(workspace.parent),
        TRACKING: f"github_{secrets.token_hex(16)}",
    }


def told(text: str, status: int) -> int:
    """Print one line, where the agent's own output goes, and return the status."""
    print(f"rehearsal-runner: {text}", flush=True)  # noqa: T201  # its log is its standard output
    return status


if __name__ == "__main__":
    sys.exit(main())
