"""Every cloud of the deployment: what is asked about a host is asked where its row says that it is.

What one cloud cannot do just now, another goes on to do: an outage is noted when something is bought, and until it is
over whoever buys takes the others. It is forgotten at a restart, which costs one more attempt.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from workers.domain.errors import Barred, Refused, SpotError, Throttled, Unreachable
from workers.domain.host import Host
from workers.domain.market import ANYWHERE
from workers.ports import Clock, Cloud, Instance

# So long nothing is bought from a cloud that could not sell: as long as a worker needs to be told otherwise.
OUTAGE: Final = timedelta(minutes=1)
# A host that was asked for so long ago, where nobody answers, is asked for elsewhere.
PATIENCE: Final = timedelta(seconds=20)


class Outages:
    """From which clouds nothing can be had just now."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since: dict[str, datetime] = {}

    def __call__(self) -> Collection[str]:
        """Return their names."""
        now = self._clock.now()
        return {name for name, at in self._since.items() if now - at < OUTAGE}

    def note(self, cloud: str, error: SpotError | None) -> None:
        """Take in how an attempt to buy ended; None: well."""
        if isinstance(error, Barred | Throttled | Unreachable):
            self._since[cloud] = self._clock.now()
        elif error is None:
            self._since.pop(cloud, None)


class Clouds:
    """The clouds by their names, the first of them for hosts that may come from anywhere."""

    def __init__(self, clouds: Iterable[Cloud], outages: Outages) -> None:
        self._clouds, self.outages = {one.name: one for one in clouds}, outages

    def __iter__(self) -> Iterator[Cloud]:
        return iter(self._clouds.values())

    def of(self, host: Host) -> Cloud:
        """Return the cloud that this host is of. Raises `Refused` if it is none of ours any more."""
        found = self._clouds.get(host.cloud)
        if found is None:
            raise Refused(
                f"{host.id} is a host of {host.cloud}, of which the settings say nothing any more; set them again "
                "until its hosts have ended (docs/clouds.md)"
            )
        return found

    def launch(self, host: Host, told: Mapping[str, str]) -> Instance:
        """Ask this host's cloud for it, as `Cloud.launch` does, and note how that ended."""
        try:
            instance = self.of(host).launch(host.id, host.spec, told, host.sources or ANYWHERE)
        except SpotError as error:
            self.outages.note(host.cloud, error)
            raise
        self.outages.note(host.cloud, None)
        return instance

    def sold_out(self, host: Host) -> Host:
        """Return the row of a host that was not to be had: what else its cloud has, and then another one, is next."""
        sources = host.sources or ANYWHERE
        if sources.pick is not None:
            return replace(host, sources=replace(sources, pick=None))
        other = self.another(host)
        return host if other is None else replace(host, cloud=other)

    def is_further(self, host: Host, after: Host) -> bool:
        """Say whether what `sold_out` returned was not asked for before: the round over the clouds is not over."""
        names = self._in_turn(host)
        if after.cloud == host.cloud:
            return after != host
        return host.cloud not in names or names.index(after.cloud) > names.index(host.cloud)

    def another(self, host: Host) -> str | None:
        """Return where else this host may come from, None if nowhere: its pool's clouds in turn without its own."""
        names = self._in_turn(host)
        place = names.index(host.cloud) + 1 if host.cloud in names else 0
        ailing = self.outages()
        return next((one for one in (*names[place:], *names[:place]) if one not in {host.cloud, *ailing}), None)

    def _in_turn(self, host: Host) -> Sequence[str]:
        """Return the clouds that this host may come from, the best first."""
        liked = (host.sources or ANYWHERE).providers
        return [one for one in liked if one in self._clouds] or list(self._clouds)
