"""`spot-runner doctor`: a table of checks; each says in one sentence what is well, what will be trouble, what is wrong.

A check is a function of the settings. What it raises on purpose is its error; a cloud's own checks stand in the table
beside the others. Nothing is changed by any of them, but that the store's tables are made if they are not there yet.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum, auto
from functools import partial
from itertools import chain
from typing import Final

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from rich.console import Console

from workers.bootstrap.clouds import open_clouds, open_dry_runs
from workers.bootstrap.control import check as check_settings
from workers.bootstrap.plan import open_buyer
from workers.bootstrap.policies import Policies
from workers.bootstrap.rented import cloud_names
from workers.bootstrap.setup import open_desk
from workers.clock import SystemClock
from workers.domain.errors import SpotError, TryLater, Unfit
from workers.domain.market import Sources
from workers.dry_run import DryRun
from workers.planning.aging import ageing, too_old
from workers.ports import Cloud
from workers.selling import Seller
from workers.settings import ControlSettings
from workers.store.repository import open_store

REDIS_LIMIT_S: Final = 2.0
ALL_WELL: Final = 0
SOMETHING_IS_WRONG: Final = 1


class Grade(StrEnum):
    """How bad it is."""

    OK = auto()
    WARNING = auto()
    """It works, and will not for ever."""
    ERROR = auto()
    """Jobs do not run as they should."""


@dataclass(frozen=True)
class Finding:
    """What one look has come to."""

    grade: Grade
    sentence: str


def settings_are_whole(settings: ControlSettings) -> Iterator[Finding]:
    """Look at what a worker looks at before it starts."""
    check_settings(settings)
    yield Finding(Grade.OK, "a worker would start with them")


def store_answers(settings: ControlSettings) -> Iterator[Finding]:
    """Read from the store."""
    with closing(open_store(settings.database, SystemClock())) as store:
        waiting = len(list(store.jobs.open()))
    yield Finding(Grade.OK, f"it answers, and has {waiting} jobs that are not done")


def redis_answers(settings: ControlSettings) -> Iterator[Finding]:
    """Ask Redis whether it is there; without it everything goes on by sweeps alone, so later."""
    wait = {"socket_timeout": REDIS_LIMIT_S, "socket_connect_timeout": REDIS_LIMIT_S}
    try:
        with closing(Redis.from_url(settings.redis_url, retry=Retry(NoBackoff(), 0), **wait)) as redis:
            redis.ping()
    except (RedisError, ValueError) as error:
        raise Unfit(f"it does not answer ({error}); start it, or set SPOT_RUNNER_REDIS_URL") from error
    yield Finding(Grade.OK, "it answers")


def runners_are_young(settings: ControlSettings) -> Iterator[Finding]:
    """Look at how old the runner program in each package is: GitHub gives no job to an old one."""
    now = SystemClock().now()
    for package in Policies(settings)().packages:
        if (because := too_old(package, now)) is not None:
            yield Finding(Grade.ERROR, because)
        elif (because := ageing(package, now)) is not None:
            yield Finding(Grade.WARNING, because)
        elif package.runner_released is None:
            told = "`runner_released` beside its digest, or SPOT_RUNNER_PACKAGE_RUNNER_RELEASED"
            sentence = f"image {package.image}: nobody has said when its runner program was released; write {told}"
            yield Finding(Grade.WARNING, sentence)
        else:
            sentence = f"image {package.image}: its runner program was released on {package.runner_released}"
            yield Finding(Grade.OK, sentence)


def app_may_what_it_must(settings: ControlSettings) -> Iterator[Finding]:
    """Ask GitHub what our App may do, and name each permission and event that it lacks."""
    seen = open_desk(settings).check()
    yield from (Finding(Grade.ERROR, sentence) for sentence in seen.lacks)
    if not seen.accounts:
        yield Finding(Grade.WARNING, f"the App {seen.name} is installed nowhere; install it at {seen.page}")
    elif not seen.lacks:
        yield Finding(Grade.OK, f"the App {seen.name} is installed in {', '.join(seen.accounts)}, and lacks nothing")


def cloud_answers(settings: ControlSettings) -> Iterator[Finding]:
    """Ask each cloud what it has of ours, and what it would say to a launch and to an end; each thing is said once."""
    clock = SystemClock()
    looks: list[Check] = [partial(_machines_of, cloud) for cloud in open_clouds(settings, clock, lambda _: ()).clouds]
    looks += [partial(_faults_of, one) for one in open_dry_runs(settings, clock)]
    found = chain.from_iterable(found_by(look, settings) for look in looks)  # one that is wrong hides no other
    yield from dict.fromkeys(found)


def offers_have_prices(settings: ControlSettings) -> Iterator[Finding]:
    """Ask each cloud what it would rent, and say what is not bought because its price or an image is missing."""
    sellers = open_clouds(settings, SystemClock(), lambda _: ()).sellers
    for seller in sellers:
        yield from found_by(partial(_stock_of, seller), settings)
    if not sellers:
        yield Finding(Grade.OK, "no cloud is asked for its prices, so each chooses by itself, or a file says them")


def _machines_of(cloud: Cloud, _settings: ControlSettings) -> Iterator[Finding]:
    yield Finding(Grade.OK, f"{cloud.name} answers; {len(list(cloud.owned()))} machines carry our name")


def _faults_of(dry_run: DryRun, settings: ControlSettings) -> Iterator[Finding]:
    is_well = True
    sources = sources_at(dry_run.name, settings)
    faults = [fault for size in settings.host_sizes for fault in dry_run.faults(size, sources)]
    for fault in dict.fromkeys(faults):
        is_well = False
        yield Finding(Grade.ERROR if fault.is_certain else Grade.WARNING, fault.sentence)
    if is_well:
        yield Finding(Grade.OK, f"{dry_run.name} would launch a host, as far as it says so without one")


def sources_at(cloud: str, settings: ControlSettings) -> Collection[Sources]:
    """Return where in this cloud, and on which terms, pools want their hosts; what no pool wants is bought as spot."""
    names, found = cloud_names(settings), list[Sources]()
    for pool in Policies(settings)().pools:
        # A pool that takes several clouds names the zones of all of them.
        is_only = (pool.sources.providers or names) == (cloud,)
        if pool.sources.allows(cloud):
            found.append(Sources(zones=pool.sources.zones if is_only else (), market=pool.sources.market))
    return tuple(dict.fromkeys(found)) or (Sources(),)


def _stock_of(seller: Seller, _settings: ControlSettings) -> Iterator[Finding]:
    stock = seller.stock()
    yield Finding(Grade.OK if stock.offers else Grade.ERROR, f"{seller.name} makes {len(stock.offers)} offers")
    yield from (Finding(Grade.WARNING, sentence) for sentence in stock.remarks)


def pools_may_buy(settings: ControlSettings) -> Iterator[Finding]:
    """Name the pools for which no host is bought now, for example because their budget is used up."""
    policies = Policies(settings)
    if policies.problem is not None:
        yield Finding(Grade.ERROR, f"{policies.problem}; the former policy holds")
    with closing(open_store(settings.database, SystemClock())) as store:
        buyer, _ = open_buyer(settings, store, policies)
        refused = buyer.refusals()
    yield from (Finding(Grade.WARNING, because) for because in refused.values())
    if not refused:
        yield Finding(Grade.OK, f"hosts may be bought for {', '.join(pool.name for pool in policies().pools)}")


Check = Callable[[ControlSettings], Iterable[Finding]]
CHECKS: Final[tuple[tuple[str, Check], ...]] = (
    ("settings", settings_are_whole),
    ("store", store_answers),
    ("redis", redis_answers),
    ("packages", runners_are_young),
    ("github", app_may_what_it_must),
    ("cloud", cloud_answers),
    ("offers", offers_have_prices),
    ("pools", pools_may_buy),
)


def found_by(check: Check, settings: ControlSettings) -> tuple[Finding, ...]:
    """Return what a check says; what it raises on purpose is an error, after what it has said before."""
    found: list[Finding] = []
    try:
        found.extend(check(settings))
    except TryLater as error:
        found.append(Finding(Grade.ERROR, f"{error or type(error).__name__}; it may pass, so look again"))
    except SpotError as error:
        found.append(Finding(Grade.ERROR, str(error)))
    except Exception as error:  # noqa: BLE001 - whatever is wrong with one thing, the others are looked at
        found.append(Finding(Grade.ERROR, f"{type(error).__name__}: {error}"))
    return tuple(found)


def run_doctor(settings: ControlSettings, checks: Iterable[tuple[str, Check]] = CHECKS) -> int:
    """Print a line for each finding; return 1 if one of them is an error."""
    console, is_well = Console(highlight=False, markup=False, emoji=False), True
    for name, check in checks:
        for finding in found_by(check, settings):
            is_well = is_well and finding.grade is not Grade.ERROR
            console.print(f"{finding.grade:<8} {name}: {_on_one_line(finding.sentence)}", soft_wrap=True)
    return ALL_WELL if is_well else SOMETHING_IS_WRONG


def _on_one_line(sentence: str) -> str:
    return " ".join(sentence.split())
