"""What a job gets for its labels, or why it gets nothing and what to write instead.

labels ─▶ wish ─▶ pool ─▶ may it ask for that? ─▶ defaults ─▶ package ─▶ terms
                    └──────────────┴───────── refused ────────┘ ─▶ the nearest wish that is not refused
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final

from workers.domain.architecture import BUILT
from workers.domain.labels import ALWAYS, Again, Interrupt, Range, Unserved, Wish, reading
from workers.domain.overlay import GuestNetwork
from workers.domain.pools import Origin, Package, Policy, Pool, Terms

# What says which package; the others say how it is run.
SHAPING: Final = ("cpu", "ram", "image")


def judge(labels: Iterable[str], origin: Origin, policy: Policy) -> Terms | Unserved:
    """Return what a job with these labels gets here."""
    found = reading(labels)
    if not found.problems:
        decided = granted(found.wish, origin, policy)
        if isinstance(decided, Terms):
            return decided
        reason = decided
    else:
        reason = found.problems[0]
    return Unserved(reason, nearest(found.wish, origin, policy), found.is_ours)


def granted(wish: Wish, origin: Origin, policy: Policy) -> Terms | str:
    """Return what comes of a wish, or in words why nothing does."""
    pool = _pool(wish, origin, policy)
    if isinstance(pool, str):
        return pool
    if refused := next(_refusals(wish, pool), None):
        return refused
    full = wish.over(pool.defaults)
    package = next((one for one in policy.offered(pool) if _fits(one, full)), None)
    if package is None:
        return _no_package(full, pool, policy)
    return Terms(
        pool=pool.name,
        package=package.digest,
        image=package.image,
        shape=package.shape,
        network=full.network or GuestNetwork.RELAY,
        interrupt=full.interrupt or Interrupt.MOVE,
        max_minutes=full.max_minutes or pool.minutes_max,
        rerun=full.rerun or Again.AUTO,
        level=pool.level,
    )


def nearest(wish: Wish, origin: Origin, policy: Policy) -> str | None:
    """Return the label nearest to this wish that is served, None if nothing is."""
    for pool in _pools_by_wish(wish, policy):
        if pool.takes(origin):
            named = replace(wish, pool=None if wish.pool is None else pool.name)
            for one in _nearer(named, pool, policy):
                if isinstance(granted(one, origin, policy), Terms):
                    return one.label
                if isinstance(granted(with_pool := replace(one, pool=pool.name), origin, policy), Terms):
                    return with_pool.label
    return None


# ---------------------------------------------------------------- which pool


def _pool(wish: Wish, origin: Origin, policy: Policy) -> Pool | str:
    if wish.pool is None:
        mine = [pool for pool in policy.pools if pool.takes_repository(origin)]
        taking = next((pool for pool in mine if pool.takes(origin)), None)
        return taking or _nowhere(mine, origin)
    pool = policy.pool(wish.pool)
    if pool is None:
        here = ", ".join(one.name for one in policy.pools if one.takes(origin)) or "none for this repository"
        return f"pool={wish.pool} is no pool here; name one that there is ({here})"
    return pool if pool.takes(origin) else _nowhere([pool] if pool.takes_repository(origin) else [], origin, wish.pool)


def _nowhere(mine: list[Pool], origin: Origin, asked: str | None = None) -> str:
    """Say why no pool takes this job; `mine` would take it if it did not come from a fork."""
    where = f"pool={asked}" if asked else f"the pool {mine[0].name}" if mine else ""
    if mine:
        return (
            f"{where} takes no jobs of forks of public repositories, since anybody may have written them; run it from "
            f"a branch of {origin.repository}, or let the administrator set forks = true for a pool"
        )
    where = where or "every pool"
    return f"{where} is closed to {origin.repository}; let the administrator add it to a pool's repositories"


def _pools_by_wish(wish: Wish, policy: Policy) -> list[Pool]:
    """Return the pool that was asked for first."""
    return sorted(policy.pools, key=lambda pool: pool.name != wish.pool)


# ---------------------------------------------------------------- what may be asked for


def _refusals(wish: Wish, pool: Pool) -> Iterator[str]:
    """Yield what this pool does not allow, and what no pool can."""
    if wish.arch is not None and wish.arch not in BUILT:
        yield f"arch={wish.arch} is not built yet; ask for arch={' or arch='.join(sorted(BUILT))}, or leave arch out"
    for key in wish.options:
        if key not in pool.keys | ALWAYS:
            may = ", ".join(key for key in sorted(pool.keys - ALWAYS)) or "nothing"
            yield f"{key} may not be asked for in pool {pool.name}; leave it out (one may ask for: {may})"
    if wish.image is not None and pool.images and wish.image not in pool.images:
        yield f"image={wish.image} is not for pool {pool.name}; take one that is ({', '.join(pool.images)})"
    asked = wish.max_minutes
    if asked is not None and pool.minutes_max is not None and asked > pool.minutes_max:
        yield f"max-minutes={asked} is more than pool {pool.name} allows; ask for {pool.minutes_max} or less"
    for key, amount, most in (("cpu", wish.cpu, pool.cpu_max), ("ram", wish.ram, pool.ram_max)):
        if amount is not None and most is not None and amount.low > most:
            yield f"{key}={amount} is more than pool {pool.name} allows; ask for {most} or less"


def _fits(package: Package, wish: Wish) -> bool:
    return (
        wish.image in {None, package.image}
        and wish.arch in {None, package.likeness.architecture}
        and (wish.cpu is None or package.shape.vcpus in wish.cpu)
        and (wish.ram is None or package.ram_gib in wish.ram)
    )


def _no_package(wish: Wish, pool: Pool, policy: Policy) -> str:
    asked = " and ".join(f"{key}={value}" for key, value in wish.options.items() if key in SHAPING)
    there = "; ".join(str(package) for package in policy.offered(pool)) or "none"
    return f"pool {pool.name} has no package of {asked or 'any kind'}; ask for one that there is ({there})"


# ---------------------------------------------------------------- what would work


def _nearer(wish: Wish, pool: Pool, policy: Policy) -> Iterator[Wish]:
    """Yield wishes like this one that the pool may grant: in the order of how near their packages are."""
    allowed = wish.without(key for key in wish.options if key not in pool.keys | ALWAYS)
    if allowed.arch not in BUILT:
        allowed = allowed.without(["arch"])
    if allowed.max_minutes is not None and pool.minutes_max is not None:
        allowed = replace(allowed, max_minutes=min(allowed.max_minutes, pool.minutes_max))
    for package in sorted(policy.offered(pool), key=lambda package: _distance(wish, package)):
        yield _shaped(allowed, package, pool)


def _shaped(wish: Wish, package: Package, pool: Pool) -> Wish:
    """Return this wish, asking for this package where it asked for what that is not."""
    over = wish.over(pool.defaults)
    cpu, ram = package.shape.vcpus, package.ram_gib
    named: dict[str, Wish] = {
        "image": Wish(image=package.image),
        "cpu": Wish(cpu=Range(cpu, cpu)),
        "ram": Wish(ram=Range(int(ram), int(ram)) if ram.is_integer() else None),
    }
    fits = {
        "image": over.image in {None, package.image},
        "cpu": over.cpu is None or cpu in over.cpu,
        "ram": over.ram is None or ram in over.ram,
    }
    for key in SHAPING:
        if not fits[key]:
            wish = wish.without([key])
            wish = wish.over(named[key]) if key in pool.keys else wish
    return wish


def _distance(wish: Wish, package: Package) -> tuple[bool, float]:
    other_image = wish.image not in {None, package.image}
    return other_image, _away(wish.cpu, package.shape.vcpus) + _away(wish.ram, package.ram_gib)


def _away(asked: Range | None, there: float) -> float:
    """Return how many times larger or smaller it is than what was asked for."""
    if asked is None or there in asked:
        return 0.0
    return there / asked.high if there > asked.high else asked.low / there
