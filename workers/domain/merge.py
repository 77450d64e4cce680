"""Two hosts and a reconciler write a migration's row at once, and no word is lost.

Each of them read a row, decided, and brings both. Whoever keeps the row locks
it, looks at how it stands now, and asks here what comes of it:

    the phase is the one that they read      what they changed is put in
    they changed sight or figures alone      the same: what was seen and measured is true in any phase
    else                                     they lost: nothing but sight is put in

So commit and abort compete by compare-and-set and exactly one wins, while words
that stay in one phase (running, wiped, figures) add up in whatever order they come.
"""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import datetime
from typing import Any, Final

from workers.domain.migration import MIGRATION, Migration, MigrationPhase, finished

SEEN: Final = ("source_seen_at", "target_seen_at")
# What is true whatever was decided.
TIMELESS: Final = frozenset({*SEEN, "figures"})
# What a host has said once stays as it was said first.
ONCE: Final = ("running_at", "wiped_at")


def is_in_time(current: Migration, before: Migration, after: Migration) -> bool:
    """Say whether this change may still be put in."""
    return current.phase is before.phase or TIMELESS.issuperset(_changed(before, after))


def merged(current: Migration, before: Migration, after: Migration) -> Migration:
    """Return the row with what turned `before` into `after`, finished if that was the last missing word.

    Of a change that comes too late only sight is put in. Raises `IllegalMove`.
    """
    if not is_in_time(current, before, after):
        return _with_seen(current, after)
    if before.phase is not after.phase:
        MIGRATION.move(before.phase, after.phase)
    changed = _changed(before, after)
    changed |= {name: getattr(current, name) or changed[name] for name in ONCE if name in changed}
    if "figures" in changed:
        changed["figures"] = {**current.figures, **_measured(before, after)}
    row = _with_seen(replace(current, **changed), current, after)
    return finished(row) if row.phase is MigrationPhase.COMMITTED else row


def is_news(former: Migration, row: Migration) -> bool:
    """Say whether more than sight has changed; a word that was said twice at once is told once."""
    return not set(SEEN).issuperset(_changed(former, row))


def untold_end(current: Migration, after: Migration, stands: Migration) -> datetime | None:
    """Return when a migration finished, if nobody knows that: both hosts spoke, and neither saw the other's word.

    `stands` is what came of putting `after` into `current`.
    """
    if stands.phase is not MigrationPhase.FINISHED or MigrationPhase.FINISHED in {current.phase, after.phase}:
        return None
    return max(moment for moment in (stands.running_at, stands.wiped_at) if moment)


def _changed(before: Migration, after: Migration) -> dict[str, Any]:
    pairs = ((field.name, getattr(before, field.name), getattr(after, field.name)) for field in fields(Migration))
    return {name: now for name, then, now in pairs if then != now}


def _measured(before: Migration, after: Migration) -> dict[str, float]:
    return {name: figure for name, figure in after.figures.items() if before.figures.get(name) != figure}


def _with_seen(row: Migration, *others: Migration) -> Migration:
    """Return the row with the latest moment at which each side was seen."""
    moments = {name: [at for one in (row, *others) if (at := getattr(one, name))] for name in SEEN}
    return replace(row, **{name: max(found) for name, found in moments.items() if found})
