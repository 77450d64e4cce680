"""Settings, read once at the edge from the environment (`SPOT_RUNNER_…`) and handed on in small pieces.

Secrets are named by the file that holds them, so that they appear in no environment and no argument list.
"""

from __future__ import annotations

from datetime import date
from enum import StrEnum, auto
from pathlib import Path

from pydantic import Field, PositiveInt
from pydantic_settings import BaseSettings, SettingsConfigDict

from workers.domain.github_site import GitHubSite, github_site
from workers.domain.host_class import Acceleration
from workers.domain.overlay import OVERLAY_PORT, UNDERLAY_MTU, GuestNetwork, Overlay, guest_mtu
from workers.domain.runner import Shape
from workers.domain.user_data import BOOTSTRAP_FILE

CONFIG = SettingsConfigDict(env_prefix="SPOT_RUNNER_", frozen=True, extra="ignore")


class AwsSettings(BaseSettings):
    """What is rented at AWS (docs/clouds.md); credentials are those that boto3 finds by itself."""

    model_config = SettingsConfigDict(env_prefix="SPOT_RUNNER_AWS_", frozen=True, extra="ignore")

    region: str | None = None
    """None: nothing is rented there."""
    subnets: tuple[str, ...] = ()
    """Of one VPC, best one in each zone (JSON, as all lists here)."""
    instance_types: tuple[str, ...] = ()
    """Each type in each subnet is a pool: the more, the cheaper and the less often taken back."""
    kvm_image: str | None = None
    """For metal, and for types that hand hardware virtualization through."""
    pvm_image: str | None = None
    """For all others."""
    instance_profile: str | None = None
    """Its name or ARN, if hosts need one; spot-runner itself needs none there."""
    security_group: str | None = None
    """None: one is made, which lets `control_source` and hosts call hosts."""
    control_source: str | None = None
    """The control plane's security group, or its network."""
    tags: dict[str, str] = {}
    """More tags for all that is made."""
    on_demand_prices: dict[str, float] = {}
    """What an hour costs in US dollars, by instance type (JSON); of others AWS's price list is asked."""
    events_queue: str | None = None
    """URL of the SQS queue into which EventBridge puts EC2's warnings; None: hosts tell of their own alone."""
    endpoint: str | None = None
    """Where all of it is, if not at AWS."""
    rest_interruptions: int = Field(default=2, ge=1)
    """So many interruptions of a spot pool …"""
    rest_interval_min: float = Field(default=15, gt=0)
    """… within so long …"""
    rest_min: float = Field(default=30, ge=0)
    """… and for so long nothing is bought there as spot."""


class HetznerSettings(BaseSettings):
    """What is rented at Hetzner Cloud (docs/clouds.md)."""

    model_config = SettingsConfigDict(env_prefix="SPOT_RUNNER_HETZNER_", frozen=True, extra="ignore")

    token_file: Path | None = None
    """Holds the token of a project, with read and write; None: nothing is rented there."""
    locations: tuple[str, ...] = ()
    """The best first; none: wherever it is cheapest."""
    server_types: tuple[str, ...] = ()
    """The best first; none: the cheapest x86 type that is large enough for a host."""
    image: str = "spot-runner/image=pvm"
    """What hosts boot: the number of a snapshot, or the labels of those of which the latest is taken."""
    ssh_key: str | None = None
    """The name of an SSH key in the project; None: Hetzner mails its owner a root password for each server."""
    endpoint: str = "https://api.hetzner.cloud/v1"


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

    public_url: str | None = None
    """How GitHub and people reach the public listener: `/setup` tells GitHub, so outside tests it is HTTPS."""
    vault_key_file: Path | None = None
    """What seals secrets in `home` (64 hex digits); None: a file there, made when it is needed."""
    github_url: str = "https://github.com"
    """The GitHub that we serve, as people open it; where its API is follows from it (`domain.github_site`)."""
    github_app_id: int = 0
    """With the files below, an App that was not set up by us; without them, the one that `/setup` keeps in `home`."""
    github_key_file: Path | None = None
    webhook_secret_file: Path | None = None
    """The webhook secret of each App in a line, and the next one while it changes: what any has signed is GitHub's."""

    installations_allowed: tuple[str, ...] = ()
    """Accounts, or numbers of installations, whose jobs are served (JSON: `["octo-org", "12345"]`); none: all."""
    installations_denied: tuple[str, ...] = ()
    """The same for those whose jobs are not; what stands in both is denied."""
    github_more_apps: dict[int, Path] = {}
    """Other Apps by id, each with the file of its private key (JSON: `{"7": "/etc/spot-runner/seven.pem"}`).

    An account that has several is served by all of them. Their webhook secrets stand in `webhook_secret_file`.
    """
    github_points_per_minute: int = Field(default=900, ge=0)
    """GitHub's secondary limit for one App; 0: a server of one's own that has no limits."""

    market_url: str | None = None
    """The local spot market, if hosts come from there."""
    aws: AwsSettings = Field(default_factory=AwsSettings)
    """`SPOT_RUNNER_AWS_…`, if hosts come from there."""
    hetzner: HetznerSettings = Field(default_factory=HetznerSettings)
    """`SPOT_RUNNER_HETZNER_…`, if hosts come from there."""
    drill_role_arn: str | None = None
    """The role that AWS Fault Injection Service takes on for `spot-runner drill --deployment`."""
    drill_region: str | None = None
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
    host_nats: tuple[str, ...] = ()
    """Networks behind whose addresses the host listener sees hosts that have no public one (JSON)."""
    park_limit_s: float = 510.0
    """How long a job may stand still there: GitHub's lock outlives nine minutes, and half a one is for the way."""

    pools_file: Path | None = None
    """What jobs may ask for (TOML, docs/pools.md); None: one pool for everybody, with the package named here."""
    package: str = ""
    """Digest of the package that runners start from."""
    package_image: str = "debian-12"
    """What that package is called by `image=`."""
    package_runner_released: date | None = None
    """When the runner program inside was released (`package inspect` says so): GitHub gives no job to an old one."""
    runner_vcpus: int = 1
    runner_memory_mib: int = 1024
    runner_disk_mib: int = 4096
    host_vcpus: int = 8
    host_memory_mib: int = 16384
    host_disk_mib: int = 65536
    larger_hosts: tuple[tuple[PositiveInt, PositiveInt, PositiveInt], ...] = ()
    """Further sizes of hosts (JSON: CPUs, MiB of memory, MiB of disk of each), for runners with no place on those."""
    host_price: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """What an hour of one host costs: budgets are counted by it."""
    currency: str = Field(default="EUR", pattern="^[A-Z]{3}$")
    """In which currency."""
    usd_rate: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """How many US dollars one of it is worth: then budgets are counted by the prices of offers."""
    offers_file: Path | None = None
    """What there is to be had, and at what price (JSON, docs/clouds.md); None: what the clouds tell themselves."""
    ask_offers: bool = True
    """Clouds are asked what they would rent at what price; false, and without a file: each chooses by itself."""
    empty_hosts: bool = False
    """The emptiest host's guests are moved to others shortly before its paid period ends, so that it is given back."""
    evacuation_room: bool = True
    """What runs in one spot lot has room elsewhere before it is needed, as far as offers allow it."""
    keep_days: int = Field(default=90, ge=7)
    """How long what has ended stays in the store, counted from its begin: jobs, runners, hosts and the timeline."""
    hold_limit_s: int = Field(default=600, ge=0)
    """How long a job may ask not to be moved, in all; 0: not at all."""
    guest_network: GuestNetwork = GuestNetwork.RELAY
    """How guests leave whose job's labels do not say: `relay` or `nat`."""
    ready_hosts: int = 0
    """How many hosts are kept ready when no job waits."""
    hosts_max: int = 8
    heartbeat_limit_s: float = 10.0
    """A host that has been silent for so long is lost."""
    recovery_pace: float = Field(default=1.0, gt=0, le=1)
    """Multiplies the intervals at which GitHub is asked for what it may not have told us; rehearsals shorten them."""

    @property
    def database(self) -> str:
        """The store's URL."""
        return self.database_url or f"sqlite:///{self.home / 'spot-runner.sqlite'}"

    @property
    def host_sizes(self) -> tuple[Shape, ...]:
        """What hosts hold: what is bought unless a runner needs more, and then the larger ones, the smallest first."""
        usual = Shape(self.host_vcpus, self.host_memory_mib, self.host_disk_mib)
        return (usual, *(Shape(*one) for one in sorted(self.larger_hosts)))

    @property
    def github_site(self) -> GitHubSite:
        """Where GitHub and its API are. Raises `BadInput`."""
        return github_site(self.github_url)

    @property
    def guest_mtu(self) -> int:
        """How long a guest's packet may be, in octets. Raises `BadInput` if too little is left."""
        return guest_mtu(self.underlay_mtu, self.overlay)


class PowersOff(StrEnum):
    """What ends when a host ends itself."""

    MACHINE = auto()
    DAEMON = auto()
    """For a host that is not alone on its machine."""


class MetadataKind(StrEnum):
    """Whose instance metadata service it is."""

    EC2 = auto()
    HETZNER = auto()
    FILE = auto()
    """Nobody's: cloud-init has written a file."""


class HostSettings(BaseSettings):
    """`spot-runner host`; everything else it learns from the machine's user data."""

    model_config = CONFIG

    host_home: Path = Path("/var/lib/spot-runner-host")
    """Keys, journal, overlays; nothing here outlives the machine."""
    metadata_url: str = "http://169.254.169.254"
    metadata_kind: MetadataKind = MetadataKind.EC2
    """`ec2` (IMDSv2, as the local market speaks it, too), `hetzner`, or `file`: where no service is."""
    bootstrap_file: Path = Path(BOOTSTRAP_FILE)
    """What cloud-init wrote, for `file`."""
    listen_port: int = 8444
    overlay_port: int = OVERLAY_PORT
    """UDP; others dial it at the address that the cloud calls public, if there is one."""
    package_store: Path = Path("/var/cache/spot-runner/packages")
    """Packages that the machine's image brought along."""
    package_cache: Path = Path("/var/cache/spot-runner/unpacked")
    build_cache: Path = Path("/var/cache/spot-runner/build")
    """What `spot-runner package build` made on its way, to be used again."""
    runner_releases_url: str = "https://api.github.com/repos/actions/runner/releases/latest"
    """What `spot-runner package renew` asks for the newest release of actions/runner."""
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
    silence_limit_s: float = Field(default=900.0, gt=0)
    """A host whose heartbeats were not answered for so long stops what is idle, lets jobs finish and ends itself."""
    wake_limit_s: float = Field(default=30.0, gt=0)
    """How long a restored guest may take to answer; more only where the host itself is emulated."""
    power_off: PowersOff = PowersOff.DAEMON
    """`machine` or `daemon`: what ends then."""
    notice_interval_s: float = 1.0

    @property
    def is_pvm(self) -> bool:
        """Whoever asks for PVM has packages whose kernels are made for it; each is held against the class anyway."""
        return (self.accel or "").lower() == Acceleration.PVM


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
