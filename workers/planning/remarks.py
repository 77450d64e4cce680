"""What is said beside a commit: that labels will never be served, or that a job was lost and what is done now.

A merge queue waits for whatever says that somebody must act, so there everything is neutral.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import datetime
from typing import Final

from workers.domain.job import RERUNS_MAX, Job
from workers.domain.labels import Unserved
from workers.domain.remark import Remark, Verdict
from workers.domain.runner import Runner, RunnerEnd

# A line in GitHub's list of checks.
NAME_MAX: Final = 100
QUEUED_AGAIN: Final = (
    "A merge queue waited for this job. If GitHub has taken the pull request out of the queue meanwhile, add it again."
)


def unserved(job: Job, why: Unserved) -> Remark | None:
    """Say that nobody serves these labels, once for each commit; None if they are none of ours."""
    if not why.is_ours:
        return None
    nearest = f"\n\nThe nearest label that works:\n\n{_fenced(f'runs-on: {why.nearest}')}" if why.nearest else ""
    summary = (
        f"Jobs with {_fenced(f'runs-on: {_listed(job.labels)}')}\n\nwait for ever, because\n\n{_fenced(why.reason)}"
        f"{nearest}\n\nWhen the labels, or the policy of the runners, are changed, nothing else needs to be done."
    )
    return _of_labels(job, Verdict.ACTION_REQUIRED, "Nobody serves these labels", summary)


def served(job: Job) -> Remark | None:
    """Say that the labels which nobody served are served now, in the place of `unserved`."""
    summary = f"The policy of the runners was changed, so jobs with {_fenced(f'runs-on: {_listed(job.labels)}')} run."
    return _of_labels(job, Verdict.NEUTRAL, "These labels are served now", summary)


def lost(job: Job, runner: Runner | None, reruns: int, refusal: str | None) -> Remark | None:
    """Say that a job was lost, when, with which host, and what is done now. `reruns`: how often it was before."""
    if refusal is None:
        title = f"Lost with its host, and run again ({reruns + 1} of {RERUNS_MAX} times at most)"
        done = (
            "It is run again as soon as GitHub allows it: when the lock on the job has expired, which takes up to ten "
            "minutes, and every other job of this attempt has ended. Jobs that failed by themselves are not run again."
        )
    else:
        title, done = "Lost with its host, and not run again", f"It is not run again: {_fenced(refusal)}"
    queue = f"\n\n{QUEUED_AGAIN}" if job.is_of_merge_queue else ""
    what = f"Attempt {job.run_attempt} of {_quoted(job.name)} was lost. {_what_happened(job.lost_at, runner)}"
    verdict = Verdict.NEUTRAL if refusal is None else Verdict.ACTION_REQUIRED
    return _remark(job, f"lost-{job.id}", job.name, verdict, title, f"{what}\n\n{done}{queue}")


def _what_happened(at: datetime | None, runner: Runner | None) -> str:
    when = f"at {at:%Y-%m-%d %H:%M:%S} UTC" if at is not None else "at a time that is not known"
    host = f"the host {_quoted(runner.host_id)}" if runner is not None and runner.host_id else "its host"
    match runner.end if runner is not None else None:
        case RunnerEnd.REQUEUED:
            return f"The cloud took {host} back; {when} it was stopped, because moving it would have cost more."
        case RunnerEnd.PARKED_TOO_LONG:
            return f"Its host was taken back and no other had room for it; {when} its time in the store was over."
        case _:
            return f"It ended with {host}, noticed {when}, before it could be moved to another one."


def _of_labels(job: Job, verdict: Verdict, title: str, summary: str) -> Remark | None:
    labels = sorted({label.lower() for label in job.labels})
    parts = [str(job.installation_id), job.repository.lower(), job.head_sha or "", *labels]
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    return _remark(job, f"labels-{key}", f"runs-on: {_listed(job.labels)}", verdict, title, summary)


def _remark(job: Job, key: str, about: str, verdict: Verdict, title: str, summary: str) -> Remark | None:
    """Return a remark beside a job's commit; None if it was told by a program that did not note its commit."""
    if job.head_sha is None:
        return None
    verdict = Verdict.NEUTRAL if job.is_of_merge_queue else verdict
    name = _one_line(f"spot-runner: {about}")[:NAME_MAX]
    return Remark(key, job.installation_id, job.repository, job.head_sha, name, verdict, title, summary)


# ---------------------------------------------------------------- foreign text in Markdown


def _listed(labels: Iterable[str]) -> str:
    return ", ".join(labels)


def _fenced(text: str) -> str:
    """Return foreign text so that nothing in it is Markdown."""
    return f"\n\n```text\n{_one_line(text).replace('`', chr(39))}\n```"


def _quoted(text: str) -> str:
    return f"`{_one_line(text).replace('`', chr(39))}`"


def _one_line(text: str) -> str:
    return " ".join(text.split())
