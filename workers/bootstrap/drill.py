"""`spot-runner drill --deployment`: take hosts of this deployment back, by whatever cloud they are of."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing

from workers.clock import SystemClock
from workers.domain.errors import Unfit
from workers.ports import Interrupter
from workers.providers.fis import FaultInjection
from workers.providers.local import LocalMarket
from workers.rehearsal.drill.deployment import DeploymentDrill, Order, earlier
from workers.rehearsal.drill.interruption import Outcome
from workers.rehearsal.screen import Screen
from workers.settings import ControlSettings
from workers.store.repository import open_store


def run_deployment_drill(settings: ControlSettings, order: Order) -> int:
    """Drill and return the exit status: 0 if no job was lost and no host is left."""
    interrupters = dict(_interrupters(settings))
    if not interrupters:
        raise Unfit(
            "drill: no cloud here takes hosts back on demand; set SPOT_RUNNER_MARKET_URL to a local spot market, or "
            "SPOT_RUNNER_DRILL_ROLE_ARN and SPOT_RUNNER_DRILL_REGION for AWS Fault Injection Service"
        )
    screen, clock = Screen(), SystemClock()
    with closing(open_store(settings.database, clock)) as store:
        drill = DeploymentDrill(store, interrupters, clock, time.sleep, screen.line, *earlier(order.json, order.seed))
        report = drill.play(order)
    screen.survival(report)
    return 1 if report[Outcome.LOST.value] or report["leftovers"] else 0


def _interrupters(settings: ControlSettings) -> Iterator[tuple[str, Interrupter]]:
    if settings.market_url is not None:
        yield "local", LocalMarket(settings.market_url)
    if settings.drill_role_arn is not None and settings.drill_region is not None:
        yield "aws", FaultInjection.open(settings.drill_role_arn, settings.drill_region)
