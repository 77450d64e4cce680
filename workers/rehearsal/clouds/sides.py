"""The two clouds that are played, as the mirror sees them."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address
from typing import Any, Final

import httpx

from workers.domain.names import HostId
from workers.rehearsal.aws.owner import NETWORK, AwsOwner
from workers.rehearsal.clouds.mirror import Shown
from workers.rehearsal.plots import Plot
from workers.settings import MetadataKind

Json = dict[str, Any]

AWS: Final = "aws"
HETZNER: Final = "hetzner"
CALL_LIMIT_S: Final = 10.0


class AwsSide:
    """Instances in a private network, behind a NAT."""

    name = AWS

    def __init__(self, owner: AwsOwner) -> None:
        self._owner = owner

    def running(self) -> Sequence[Shown]:
        found = self._owner.running()
        return [
            Shown(HostId(one.host), Plot(MetadataKind.EC2, one.id, one.address, NETWORK), one.user_data)
            for one in found
        ]

    def end(self, shown: Shown) -> None:
        self._owner.end(shown.plot.instance_id)


class HetznerSide:
    """Servers in the internet, each at its own address."""

    name = HETZNER

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=f"{url}/_simulator", timeout=CALL_LIMIT_S, trust_env=False)

    def running(self) -> Sequence[Shown]:
        servers: list[Json] = self._client.get("/servers").raise_for_status().json()["servers"]
        return [_shown(one) for one in servers if one["is_left"] and one["status"] == "running"]

    def end(self, shown: Shown) -> None:
        """Switch it off, as a machine does itself; it costs until somebody deletes it."""
        self._client.post(f"/servers/{shown.host_id}/off").raise_for_status()


def _shown(told: Json) -> Shown:
    plot = Plot(MetadataKind.HETZNER, str(told["id"]), IPv4Address(told["address"]))
    return Shown(HostId(told["name"]), plot, told["user_data"])
