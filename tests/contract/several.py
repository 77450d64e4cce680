"""The clouds of a deployment as if they were one: each host's row says of which it is, as the reconciler has it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import cycle

from tests.contract.clouds import SPEC
from tests.fakes.clock import START
from workers.domain.host import Host, HostState
from workers.domain.market import ANYWHERE, Sources
from workers.domain.names import HostId
from workers.domain.runner import Shape
from workers.ports import Cloud, Instance
from workers.reconcilers.clouds import Clouds


class AsOne:
    """ports.Cloud over `Clouds`; every new host is of the next cloud in turn."""

    name = "several"

    def __init__(self, clouds: Clouds) -> None:
        self._clouds, self._rows = clouds, dict[HostId, Host]()
        self._next = cycle(one.name for one in clouds)

    def launch(
        self, host_id: HostId, spec: Shape, user_data: Mapping[str, str], sources: Sources = ANYWHERE
    ) -> Instance:
        return self._clouds.launch(self._row(host_id, spec, sources), user_data)

    def terminate(self, host_id: HostId) -> None:
        self._of(host_id).terminate(host_id)

    def describe(self, host_id: HostId) -> Instance | None:
        return self._of(host_id).describe(host_id)

    def owned(self) -> Iterable[Instance]:
        return [instance for cloud in self._clouds for instance in cloud.owned()]

    def _of(self, host_id: HostId) -> Cloud:
        return self._clouds.of(self._row(host_id))

    def _row(self, host_id: HostId, spec: Shape = SPEC, sources: Sources = ANYWHERE) -> Host:
        if host_id not in self._rows:
            self._rows[host_id] = Host(host_id, next(self._next), HostState.REQUESTED, START, spec, sources=sources)
        return self._rows[host_id]
