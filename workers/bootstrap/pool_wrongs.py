"""What is wrong with a policy file whose fields are each right: what they say together, and with the settings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC

from workers.bootstrap import pool_fields as fields
from workers.bootstrap.toml_lines import Place
from workers.domain.architecture import unbuilt
from workers.domain.labels import KEYS, read_options
from workers.domain.pools import Origin, Policy, Pool
from workers.domain.schedule import FORM, read_window
from workers.planning.rooms import size_for
from workers.planning.serving import granted
from workers.settings import ControlSettings

Found = Iterator[tuple[Place, str]]


def wrongs(told: fields.File, policy: Policy, settings: ControlSettings) -> Found:
    """Yield what is wrong, and where in the file."""
    yield from _doubles("packages", [str(one) for one in policy.packages], "one package for each image and shape")
    yield from _doubles("pools", [one.name for one in policy.pools], "one pool of each name")
    rooms = settings.host_sizes
    for number, package in enumerate(policy.packages):
        if (refused := unbuilt(package.likeness.architecture)) is not None:
            yield ("packages", number, "architecture"), f"packages.{number}.architecture: {refused}"
        if size_for((package.shape,), rooms) is None:
            yield (
                ("packages", number),
                (
                    f"packages.{number}: no host has room for {package}; hosts have {rooms[-1].vcpus} CPUs, "
                    f"{rooms[-1].memory_mib} MiB and a disk of {rooms[-1].disk_mib} MiB (SPOT_RUNNER_HOST_…, "
                    "SPOT_RUNNER_LARGER_HOSTS)"
                ),
            )
    for number, (one, pool) in enumerate(zip(told.pools, policy.pools, strict=True)):
        for key, text in _pool_wrongs(one, pool, policy, settings):
            yield ("pools", number, *key), f"pools.{number} ({pool.name}): {'.'.join(map(str, key))}: {text}"


def _doubles(place: str, names: Sequence[str], remedy: str) -> Found:
    for number, name in enumerate(names):
        if name in names[:number]:
            yield (place, number), f"{place}: {name} stands there twice; keep {remedy}"


def _pool_wrongs(told: fields.Pool, pool: Pool, policy: Policy, settings: ControlSettings) -> Found:
    problems = read_options(told.defaults).problems
    for problem in problems:
        yield ("defaults",), problem.removeprefix("runs-on: ")
    yield from _of_choices(told, policy)
    if not problems:
        yield from _of_defaults(told, pool, policy)
    if told.runner_group is not None and told.register_with == "repository":
        yield (
            ("runner_group",),
            (
                f'{told.runner_group!r:.60} is a group of an organization; write register = "organization" beside it, '
                "or remove it"
            ),
        )
    yield from _of_time(told)
    yield from _of_hosts(told, settings)


def _of_choices(told: fields.Pool, policy: Policy) -> Found:
    for number, key in enumerate(told.keys):
        if key not in KEYS:
            yield ("keys", number), f"{key!r:.60} is none; the keys are {', '.join(KEYS)}"
    images = {package.image for package in policy.packages}
    for number, image in enumerate(told.images):
        if image not in images:
            yield ("images", number), f"{image} is in no package; the images are {', '.join(sorted(images))}"
    if told.package not in {None, *images, *(package.digest for package in policy.packages)}:
        yield (
            ("package",),
            (
                f"{told.package} is neither the digest nor the image of a package; the images are "
                f"{', '.join(sorted(images))}"
            ),
        )


def _of_defaults(told: fields.Pool, pool: Pool, policy: Policy) -> Found:
    asked = read_options(told.defaults).wish
    if asked.pool is not None:
        yield ("defaults",), "pool is no default of a pool; remove it"
    if asked.network is not None and told.network not in {None, asked.network}:
        yield ("network",), f"{told.network} is not what defaults say, network={asked.network}; keep one of them"
    if told.package is not None and not list(policy.offered(replace(pool, images=(), cpu_max=None, ram_max=None))):
        return  # told already
    # Its own defaults are asked for by whoever asks for nothing, so they must be granted, whatever jobs may say.
    open_to_all = replace(pool, keys=frozenset(KEYS), repositories=("*",))
    decided = granted(pool.defaults.without(["pool"]), Origin(""), replace(policy, pools=(open_to_all,)))
    if isinstance(decided, str):
        yield ("defaults",), decided


def _of_time(told: fields.Pool) -> Found:
    if not fields.is_zone(told.time_zone):
        yield ("time_zone",), f"{told.time_zone!r:.60} is no time zone; write one as Europe/Berlin, or UTC"
    for number, one in enumerate(told.schedules):
        place: Place = ("schedules", number)
        if one.time_zone is not None and not fields.is_zone(one.time_zone):
            yield (*place, "time_zone"), f"{one.time_zone!r:.60} is no time zone; write one as Europe/Berlin, or UTC"
        if read_window(one.when, UTC) is None:
            yield (*place, "when"), f"{one.when!r:.60} is no window; write {FORM}"
        if one.min_ready is None and one.runners_per_repository is None:
            yield place, "it changes nothing; give it min_ready or runners_per_repository, or remove it"


def _of_hosts(told: fields.Pool, settings: ControlSettings) -> Found:
    for key, names in (("providers", told.providers), ("zones", told.zones)):
        for number, name in enumerate(names):
            if name in names[:number]:
                yield (key, number), f"{name} stands there twice; name each once, the best first"
    ready = [(("min_ready",), told.min_ready)]
    more = [(("schedules", number, "min_ready"), one.min_ready or 0) for number, one in enumerate(told.schedules)]
    for place, count in [*ready, *more]:
        if count > settings.hosts_max:
            yield place, f"{count} hosts are more than there may be; raise SPOT_RUNNER_HOSTS_MAX ({settings.hosts_max})"
    if told.budget is not None:
        yield from _of_money(told.budget, settings)


def _of_money(told: fields.Budget, settings: ControlSettings) -> Found:
    if settings.host_price is None:
        yield ("budget",), "what a host costs is not known; set SPOT_RUNNER_HOST_PRICE to the price of one hour"
    if told.currency != settings.currency:
        yield (
            ("budget", "currency"),
            (
                f"{told.currency} is not the currency of SPOT_RUNNER_HOST_PRICE; write {settings.currency}, or set "
                "SPOT_RUNNER_CURRENCY"
            ),
        )
