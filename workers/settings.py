"""Settings, read once at the edge from the environment (`SPOT_RUNNER_…`) and handed on in small pieces.

Secrets are named by the file that holds them, so that they appear in no environment and no argument list.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from workers.domain.overlay import OVERLAY_PORT, UNDERLAY_MTU, GuestNetwork, Overlay, guest_mtu

CONFIG = SettingsConfigDict(env_prefix="SPOT_RUNNER_", frozen=True, extra="ignore")


class ControlSettings(BaseSettings):
    """`spot-runner serve` and `spot-runner worker`."""

    model_config = CONFIG

    home: Path = Path("/var/lib/spot-runner")
    """The database, the certificate authority, the beat's schedule."""
    database_url: str | None = None
    """None: SQLite in `home`."""
    redis_url: str = "redis://127.0.0.1:6379/0"
    public_listen: str = "0.0.0.0:8080"
    host_listen: str = "0.0.0.0:8443"
    host_url: str = "https://127.0.0.1:8443"
    """How hosts reach the host listener."""

    github_url: str = "https://api.github.com"
    github_app_id: int = 0
    github_key_file: Path | None = None
    webhook_secret_file: Path | None = None
    """One secret, or two in two lines while it is changed: what either has signed is GitHub's."""

    market_url: str | None = None
    """The local spot market, if hosts come from there."""
    relay_url: str | None = None
    """The relay's control address, https."""
    relay_address: str | None = None
    """Where hosts send their guests' frames."""
    overlay: Overlay = Overlay.PLAIN
    """`plain` inside one trusted network, `wireguard` everywhere else; the same for the relay."""
    overlay_endpoint: str | None = None
    """`address:port` at which every host can dial the relay, which is the overlay's hub (UDP)."""
    underlay_mtu: int = UNDERLAY_MTU
    """The narrowest network that a host of this deployment may stand in; the same for the relay."""

    objects_bucket: str | None = None
    """The S3 bucket in which guests are parked; None: a directory in `home`, served by the host listener."""
    objects_region: str | None = None
    objects_endpoint: str | None = None
    """Where S3 is, if not at AWS."""
    park_limit_s: float = 510.0
    """How long a job may stand still there: GitHub's lock outlives nine minutes, and half a one is for the way."""

    pools_file: Path | None = None
    """What jobs may ask for (TOML, docs/labels.md); None: one pool for everybody, with the package named here."""
    package: str = ""
    """Digest of the package that runners start from."""
    package_image: str = "debian-12"
    """What that package is called by `image=`."""
    runner_vcpus: int = 1
    runner_memory_mib: int = 1024
    runner_disk_mib: int = 4096
    host_vcpus: int = 8
    host_memory_mib: int = 16384
    host_disk_mib: int = 65536
    hold_limit_s: int = Field(default=600, ge=0)
    """How long a job may ask not to be moved, in all; 0: not at all."""
    guest_network: GuestNetwork = GuestNetwork.RELAY
    """How guests leave whose job's labels do not say: `relay` or `nat`."""
    ready_hosts: int = 0
    """How many hosts are kept ready when no job waits."""
    hosts_max: int = 8
    heartbeat_limit_s: float = 10.0
    """A host that has been silent for so long is lost."""

    @property
    def database(self) -> str:
        """The store's URL."""
        return self.database_url or f"sqlite:///{self.home / 'spot-runner.sqlite'}"

    @property
    def guest_mtu(self) -> int:
        """How long a guest's packet may be, in octets. Raises `BadInput` if too little is left."""
        return guest_mtu(self.underlay_mtu, self.overlay)

    @property
    def webhook_secrets(self) -> tuple[SecretStr, ...]:
        """The secrets that sign GitHub's deliveries: each line that is not empty."""
        if self.webhook_secret_file is None:
            return ()
        lines = self.webhook_secret_file.read_text().splitlines()
        return tuple(SecretStr(line.strip()) for line in lines if line.strip())


class HostSettings(BaseSettings):
    """`spot-runner host`; everything else it learns from the machine's user data."""

    model_config = CONFIG

    host_home: Path = Path("/var/lib/spot-runner-host")
    """Keys, journal, overlays; nothing here outlives the machine."""
    metadata_url: str = "http://169.254.169.254"
    listen_port: int = 8444
    overlay_port: int = OVERLAY_PORT
    """UDP; others dial it at the address that the cloud calls public, if there is one."""
    package_store: Path = Path("/var/cache/spot-runner/packages")
    """Packages that the machine's image brought along."""
    package_cache: Path = Path("/var/cache/spot-runner/unpacked")
    build_cache: Path = Path("/var/cache/spot-runner/build")
    """What `spot-runner package build` made on its way, to be used again."""
    accel: str | None = Field(default=None, alias="SPOT_RUNNER_ACCEL")
    """`kvm`, `pvm` or `tcg`; None: the best that a probe finds."""
    allow_tcg: bool = False
    """Software emulation is not a security boundary, so a host that has nothing better is not READY by itself."""
    guest_mbit: int = 1000
    """What one guest may send, and be sent, in a second."""
    guest_connections_max: int = 4096
    """What one guest that leaves through this host may hold open, each family by itself."""
    guest_forbidden: tuple[str, ...] = ()
    """Networks that no such guest may reach, beside those that none ever may and the control plane."""
    heartbeat_interval_s: float = 1.0
    notice_interval_s: float = 1.0


class RelaySettings(BaseSettings):
    """`spot-runner relay`."""

    model_config = CONFIG

    relay_home: Path = Path("/var/lib/spot-runner-relay")
    """Holds `certificate.pem`, `key.pem` and `control-ca.pem`."""
    relay_listen: str = "0.0.0.0:8445"
    relay_address: str = "127.0.0.1"
    """The address to which hosts send their guests' frames; with an overlay it is the hub's, whatever is set."""
    relay_public_interface: str = "eth1"
    """Guests leave through this interface, with its address."""
    relay_forbidden: tuple[str, ...] = ()
    """Networks that no guest may reach, beside those that none ever may."""
    overlay: Overlay = Overlay.PLAIN
    overlay_port: int = OVERLAY_PORT
    """UDP; hosts dial it."""
    overlay_callers: tuple[str, ...] = ()
    """Networks whose machines may call hosts through us: the control plane's, unless it is on this machine."""
    underlay_mtu: int = UNDERLAY_MTU
    guest_connections_max: int = 4096
    """What one guest may hold open, each family by itself."""

    @property
    def guest_mtu(self) -> int:
        """How long a guest's packet may be, in octets. Raises `BadInput` if too little is left."""
        return guest_mtu(self.underlay_mtu, self.overlay)
