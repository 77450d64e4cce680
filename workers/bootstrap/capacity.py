"""What the settings say of buying: how many hosts of which size, at what price, and of which offers."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from workers.bootstrap.offers import OffersFile
from workers.bootstrap.rented import billing, cloud_names, usd_rate
from workers.domain.offer import Assortment
from workers.planning.capacity import CapacityPolicy
from workers.settings import ControlSettings


def capacity_of(settings: ControlSettings) -> CapacityPolicy:
    """Return what may be bought. Raises `Unfit` if no cloud is set."""
    names = cloud_names(settings)
    return CapacityPolicy(
        names[0],
        settings.host_sizes[0],
        settings.ready_hosts,
        settings.hosts_max,
        timedelta(seconds=settings.heartbeat_limit_s),
        settings.host_price,
        billing(names[0]),
        keeps_room=settings.evacuation_room,
        empties_hosts=settings.empty_hosts,
        usd_rate=usd_rate(settings),
        clouds=names,
        billings={name: billing(name) for name in names},
        larger=settings.host_sizes[1:],
    )


def offers_of(
    settings: ControlSettings, told: Callable[[], Assortment], file: Path | None = None
) -> Callable[[], Assortment]:
    """Return what tells the offers of now, of the deployment's clouds only: a file if one is set, else what was `told`.

    Raises `BadInput`.
    """
    path, names = file or settings.offers_file, cloud_names(settings)
    if path is None:
        return told
    seller = OffersFile(path)
    return lambda: Assortment(tuple(one for one in seller.offers() if one.cloud in names))
