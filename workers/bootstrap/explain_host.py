"""`spot-runner explain --host`: how long a host took to be READY, and what kept it from that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Final

from rich.console import Console

from workers.bootstrap.explain import printable
from workers.clock import SystemClock
from workers.domain.errors import BadInput
from workers.domain.events import Event, Happening
from workers.domain.host import Host
from workers.domain.names import HostId
from workers.planning.readying import readying
from workers.settings import ControlSettings
from workers.store.repository import open_store

TROUBLES: Final = frozenset({Happening.LAUNCH_REFUSED, Happening.REGISTRATION_REFUSED, Happening.HOST_TROUBLED})


def run_explain_host(settings: ControlSettings, name: str) -> int:
    """Explain one host and return 0. Raises `BadInput` if it is not known."""
    with closing(open_store(settings.database, SystemClock())) as store:
        host, events = store.hosts.get(HostId(name)), store.timeline_of(HostId(name))
    if host is None:
        raise BadInput(f"host {name!r} is not known here; its name begins with spot-host- and stands in the timeline")
    console = Console(highlight=False, markup=False, emoji=False)
    for line in host_lines(host, events):
        console.print(printable(line), soft_wrap=True)
    return 0


def host_lines(host: Host, events: Sequence[Event]) -> Iterator[str]:
    """Yield what became of a host, each stage with the seconds since the one before."""
    yield f"host {host.id} of {host.cloud}: {host.state}"
    yield f"requested: {host.requested_at:%Y-%m-%d %H:%M:%S} UTC"
    found = readying(events).get(host.id)
    if found is not None:
        for stage, span_s in found.spans_s.items():
            if stage == "ready":
                yield from (f"  {name.replace('_', ' ')}: {took_s:.1f} s" for name, took_s in found.own_s.items())
            yield f"{stage}: +{span_s:.1f} s"
        if found.ready_s is not None:
            yield f"READY {found.ready_s:.1f} s after it was running"
    for event in events:
        if event.happening in TROUBLES:
            yield f"{event.happening.value.replace('_', ' ')}: {event.detail.get('because')}"
