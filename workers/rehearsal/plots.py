"""Where one machine stands and what its metadata service says, if a cloud says so and not the market itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from workers.rehearsal.topology import Inside
from workers.settings import MetadataKind

USER_DATA: Final = {MetadataKind.EC2: "latest/user-data", MetadataKind.HETZNER: "hetzner/v1/userdata"}


@dataclass(frozen=True)
class Plot:
    """One machine's place."""

    kind: MetadataKind
    instance_id: str
    address: IPv4Address
    """Its own: where everybody reaches it, or behind a NAT the one that it has in `network`."""
    network: IPv4Network | None = None
    """What lies behind its NAT; None: it stands in the internet itself."""
    has_public: bool = True
    """Its cloud calls that address public."""

    @property
    def inside(self) -> Inside | None:
        """Its place behind its NAT."""
        return None if self.network is None else Inside(self.network, self.network[1], self.address)

    @property
    def environment(self) -> Mapping[str, str]:
        """What the daemon's own unit says in this cloud's image."""
        return {"SPOT_RUNNER_METADATA_KIND": self.kind.value}

    def bodies(self, user_data: str) -> Mapping[str, str]:
        """Return what the metadata service serves."""
        told = {USER_DATA[self.kind]: user_data}
        if self.kind is MetadataKind.HETZNER:
            here = "hetzner/v1/metadata"
            return told | {f"{here}/instance-id": self.instance_id, f"{here}/public-ipv4": str(self.address)}
        public = {"latest/meta-data/public-ipv4": str(self.address)} if self.has_public and self.inside is None else {}
        own = {"latest/meta-data/instance-id": self.instance_id, "latest/meta-data/local-ipv4": str(self.address)}
        return told | own | public
