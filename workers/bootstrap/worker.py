"""`spot-runner worker`: one Celery process for each queue and the beat, under one supervisor.

Each queue has a process of its own, because a cloud that answers slowly must not hold up an evacuation.
"""

from __future__ import annotations

import sys
from typing import Final

from workers.app import QUEUES
from workers.bootstrap.control import check
from workers.bootstrap.leaf import RELAY_INTERVAL, RENEWAL_INTERVAL, relay_renewal, renewal
from workers.bootstrap.supervisor import Child, Chore, supervise
from workers.settings import ControlSettings
from workers.telemetry import start_logging

BEAT: Final = "beat"


def run_worker(settings: ControlSettings) -> int:
    """Work until SIGTERM. Raises `Unfit` if this machine or these settings do not allow it."""
    start_logging("worker")
    check(settings)
    chores = [Chore(RENEWAL_INTERVAL.total_seconds(), renewal(settings, "worker"))]
    if settings.relay_url is not None:
        renew = relay_renewal(settings, settings.home / "worker", settings.relay_url)
        chores.append(Chore(RELAY_INTERVAL.total_seconds(), renew))
    children = [Child(name, (sys.executable, "-m", "workers.tasks", name)) for name in (*QUEUES, BEAT)]
    return supervise(children, chores)
