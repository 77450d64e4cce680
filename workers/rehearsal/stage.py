"""Everything that stands while the story is played: the network, the internet behind the relay, and the service itself.

<p>-internet   GitHub simulator, git server, echo server, spot market ──▶ hosts, each in a namespace of its own
<p>-control    redis-server, `spot-runner serve`, `spot-runner worker`
<p>-relay      `spot-runner relay`
"""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

import httpx
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from pydantic import TypeAdapter

from workers.domain.errors import Unreachable
from workers.domain.names import HostId, PackageDigest
from workers.domain.overlay import OVERLAY_PORT
from workers.ports import Store
from workers.rehearsal import internet
from workers.rehearsal import places as at
from workers.rehearsal.commands import run
from workers.rehearsal.github.client import SimulatorClient
from workers.rehearsal.landlord import Estate
from workers.rehearsal.places import Places
from workers.rehearsal.processes import Processes, Program, Running
from workers.rehearsal.remains import Journal, Kind, leftovers, sweep
from workers.rehearsal.topology import Topology, accepts, standing_in
from workers.wireguard import link_name

# The simulator's job lock: GitHub's ten minutes are longer than anybody wants to watch.
JOB_LOCK_S: Final = 30
# As much of it as of GitHub's own is let pass with a parked guest.
PARK_PART: Final = 0.85
# Several Python programs start at once on what may be two processors.
READY_LIMIT_S: Final = 180.0
CALL_LIMIT_S: Final = 10.0
APP_ID: Final = 4711
ACCOUNT: Final = "octo-org"
GITHUB_URL: Final = f"http://{at.INTERNET_SERVERS}:{at.GITHUB_PORT}"
MARKET_URL: Final = f"http://{at.INTERNET_SERVERS}:{at.MARKET_PORT}"
WEBHOOK_URL: Final = f"http://{at.CONTROL_INTERNET}:{at.WEBHOOK_PORT}"

T = TypeVar("T")


@dataclass(frozen=True)
class Terms:
    """What differs from play to play."""

    ready_hosts: int
    job_lock_s: int = JOB_LOCK_S
    """After so many seconds without its runner the simulated GitHub fails a job."""
    disk_mib: int | None = None
    """How much a host's own disk holds; None: as much as this machine's."""
    with_overlay: bool = False
    """Machines are of two clouds, and reach each other through WireGuard."""

    @property
    def park_limit_s(self) -> float:
        """How long a parked job may stand still."""
        return self.job_lock_s * PARK_PART


@dataclass(frozen=True)
class Kit:
    """What the rehearsal is handed by whoever wires it, since it may not know these parts itself."""

    acceleration: str
    reason: str
    """Why this acceleration was chosen, in words."""
    package: PackageDigest
    program: str
    """The path of `spot-runner`."""
    open_store: Callable[[Path], Store]
    """Open the control plane's store below its home; makes it the first time."""
    write_relay_identity: Callable[[Path, Path], None]
    """(home of the control plane, home of the relay)."""
    measure_cold_boot: Callable[[Path], float]
    """Boot the package's guest without its snapshot in this folder; return the seconds until its agent answered."""
    hold_store: Callable[[Path], AbstractContextManager[object]]
    """Keep everybody from writing to that store for the length of a block."""
    look_at_copies: Callable[[], Mapping[str, Mapping[tuple[str, int], int]]]
    """Return runner -> (host, process id) -> nanoseconds that the virtual processors of that copy have run."""
    host_environment: Mapping[str, str] = field(default_factory=dict)
    """What every host is told beside its home."""


class Stage:
    """The machinery of one rehearsal."""

    sellers = "spot market"
    """Where hosts come from, in words."""

    def __init__(self, places: Places, kit: Kit, terms: Terms) -> None:
        self.places = places
        self.kit = kit
        self.terms = terms
        self.journal = Journal(places.journal)
        self.processes = Processes(places.logs, self.journal)
        self.github = SimulatorClient(GITHUB_URL)
        self._store: Store | None = None

    @property
    def store(self) -> Store:
        """The control plane's store."""
        if self._store is None:
            raise Unreachable("the store is not open before the control plane is prepared")
        return self._store

    # ------------------------------------------------------------ up and down

    def lay_network(self, *, with_window: bool) -> None:
        """Make the namespaces and their wires."""
        topology = Topology(self.places, self.journal)
        topology.build()
        if self.terms.with_overlay:
            topology.route_overlay()
        if with_window:
            topology.open_window()

    def open_internet(self) -> None:
        """Start what lies behind the relay."""
        keys, repositories = self.places.state / "keys", self.places.state / "git"
        _write_keys(keys)
        internet.make_repository(repositories)
        echo = f"{at.INTERNET_SERVERS}:{at.ECHO_PORT}"
        started = {
            at.GIT_PORT: self.start("git", "internet", internet.git_daemon(repositories)),
            at.ECHO_PORT: self.start("echo", "internet", _python("workers.rehearsal.internet", "--listen", echo)),
            at.MARKET_PORT: self._open_market(),
            at.GITHUB_PORT: self.start("github", "internet", self._simulator(keys)),
        }
        for port, running in started.items():
            self._wait_port(running, "internet", str(at.INTERNET_SERVERS), port)
        self.in_internet(lambda: self.github.install(ACCOUNT))

    def start_service(self) -> None:
        """Start the control plane and the relay, each as its own command."""
        home, relay_home = self.places.state / "control", self.places.state / "relay"
        self._store = self.kit.open_store(home)
        self.kit.write_relay_identity(home, relay_home)
        self.start("redis", "control", _redis(self.places.run))
        relay = self.start("relay", "relay", (self.kit.program, "relay"), self._relay_environment(relay_home))
        serve = self.start("serve", "control", (self.kit.program, "serve"), self._control_environment())
        self.start("worker", "control", (self.kit.program, "worker"), self._control_environment())
        self._wait_port(relay, "relay", str(at.RELAY_UNDERLAY), at.RELAY_PORT)
        self._wait_port(serve, "control", str(at.CONTROL_UNDERLAY), at.HOST_LISTENER_PORT)
        serve.wait_ready(self._is_healthy, READY_LIMIT_S)

    def take_down(self) -> tuple[str, ...]:
        """End and remove everything; return what is still there in spite of it."""
        remnants = self.journal.remnants()
        self.github.close()
        self.processes.stop()
        remnants = tuple(dict.fromkeys((*remnants, *self.journal.remnants())))
        sweep(self.places)
        return leftovers(self.places, remnants)

    # ------------------------------------------------------------ what the story asks

    def in_internet(self, ask: Callable[[], T]) -> T:
        """Ask something while standing in the internet's namespace. Raises `Unreachable`."""
        try:
            with standing_in(self.places.namespace("internet")):
                return ask()
        except httpx.HTTPError as error:
            raise Unreachable(
                f"the rehearsal's internet does not answer ({error!r}); see {self.places.logs}"
            ) from error

    def take_away(self, host_id: HostId, seconds: float) -> None:
        """Let the market take a host back after so many seconds; 0: at once, without a notice."""
        self._ask_market("POST", host_id, "notice", {"seconds": seconds})

    def take_all_away(self, seconds: float) -> None:
        """Let the market take every host back after so many seconds, and have no machines to sell from now on."""
        self._ask("POST", f"{MARKET_URL}/notice", {"seconds": seconds})

    def give_back(self, host_id: HostId) -> None:
        """Let the market withdraw its notice."""
        self._ask_market("DELETE", host_id, "notice")

    def crash_daemon(self, host_id: HostId) -> None:
        """Kill a host's daemon; the machine starts it again."""
        self._ask_market("POST", host_id, "crash")

    def sell(self, *, machines: bool) -> None:
        """Let the market have machines to sell, or none."""
        self._ask("PUT", f"{MARKET_URL}/stock", {"machines": machines})

    def end_work(self) -> None:
        """Tell every job that works as long as it is let to come to its end; those that do not listen yet miss it."""
        self.processes.named("echo").child.send_signal(internet.BELL)

    def tunnelled_mib(self, host_id: HostId) -> float:
        """Return how much has come to a host through its tunnels. Raises `Unreachable`."""
        link = link_name(host_id)  # its peers' own counters end with them
        shown = run("ip", "-n", self.places.namespace(host_id), "-json", "-s", "link", "show", "dev", link)
        received: int = json.loads(shown)[0]["stats64"]["rx"]["bytes"]
        return received / (1 << 20)

    def _ask_market(self, method: str, host_id: HostId, what: str, body: Mapping[str, float] | None = None) -> None:
        self._ask(method, f"{MARKET_URL}/instances/{host_id}/{what}", body)

    def _ask(self, method: str, url: str, body: Mapping[str, float] | None) -> None:

        def ask() -> None:
            with httpx.Client(timeout=CALL_LIMIT_S, trust_env=False) as client:
                client.request(method, url, json=body).raise_for_status()

        self.in_internet(ask)

    # ------------------------------------------------------------ the programs

    def start(
        self, name: str, role: str, command: tuple[str, ...], environment: Mapping[str, str] | None = None
    ) -> Running:
        """Start a program of the play in the namespace of a role."""
        return self.processes.start(Program(name, command, self.places.namespace(role), environment or {}))

    def _wait_port(self, running: Running, role: str, address: str, port: int) -> None:
        running.wait_ready(lambda: accepts(self.places.namespace(role), address, port), READY_LIMIT_S)

    def _is_healthy(self) -> bool:
        try:
            with standing_in(self.places.namespace("control")):
                return httpx.get(f"{WEBHOOK_URL}/healthz", timeout=CALL_LIMIT_S, trust_env=False).is_success
        except httpx.HTTPError:
            return False

    # ------------------------------------------------------------ where hosts come from

    def _open_market(self) -> Running:
        """Start what rents machines out; the internet is there already."""
        return self.start("market", "internet", _python("workers.rehearsal.market", self._estate()))

    def _rented_from(self) -> Mapping[str, object]:
        """Return the control plane's settings of it, by their names without what all begin with."""
        # A simulated cloud may tell of addresses of its own, and its machines stand in this network all the same.
        return {"MARKET_URL": MARKET_URL, "HOST_NATS": json.dumps([str(at.UNDERLAY)])}

    def _credentials(self) -> Mapping[str, str]:
        """Return what the control plane's environment has for its clouds' own libraries."""
        return {}

    def _estate(self) -> str:
        environment = {"SPOT_RUNNER_ALLOW_TCG": "true", **self.kit.host_environment}
        daemon, metadata = (self.kit.program, "host"), _python("workers.rehearsal.imds")
        estate = Estate(
            self.places,
            daemon,
            metadata,
            environment,
            disk_mib=self.terms.disk_mib,
            with_overlay=self.terms.with_overlay,
        )
        file = self.places.state / "market.json"
        told = {"estate": TypeAdapter(Estate).dump_python(estate, mode="json")}
        file.write_text(json.dumps({**told, "listen": [str(at.INTERNET_SERVERS), at.MARKET_PORT]}))
        return str(file)

    def _simulator(self, keys: Path) -> tuple[str, ...]:
        return _python(
            "workers.rehearsal.github",
            *("--listen", f"{at.INTERNET_SERVERS}:{at.GITHUB_PORT}", "--webhook-url", f"{WEBHOOK_URL}/github"),
            *("--webhook-secret-file", str(keys / "webhook"), "--app-key-file", str(keys / "app-public.pem")),
            *("--app-id", str(APP_ID), "--lock-seconds", str(self.terms.job_lock_s)),
            *("--state-dir", str(self.places.state / "github")),
        )

    def _control_environment(self) -> dict[str, str]:
        keys = self.places.state / "keys"
        told: dict[str, object] = {
            "HOME": self.places.state / "control",
            "REDIS_URL": f"redis+socket://{self.places.run / 'redis.sock'}",
            "PUBLIC_LISTEN": f"{at.CONTROL_INTERNET}:{at.WEBHOOK_PORT}",
            "HOST_LISTEN": f"{at.CONTROL_UNDERLAY}:{at.HOST_LISTENER_PORT}",
            "HOST_URL": f"https://{at.CONTROL_UNDERLAY}:{at.HOST_LISTENER_PORT}",
            "GITHUB_URL": GITHUB_URL,
            "GITHUB_APP_ID": APP_ID,
            "GITHUB_KEY_FILE": keys / "app.pem",
            "WEBHOOK_SECRET_FILE": keys / "webhook",
            "RELAY_URL": f"https://{at.RELAY_UNDERLAY}:{at.RELAY_PORT}",
            "RELAY_ADDRESS": at.RELAY_UNDERLAY,
            "PACKAGE": self.kit.package,
            "READY_HOSTS": self.terms.ready_hosts,
            "PARK_LIMIT_S": self.terms.park_limit_s,
        }
        if self.terms.with_overlay:
            told |= {"OVERLAY": "wireguard", "OVERLAY_ENDPOINT": f"{at.RELAY_UNDERLAY}:{OVERLAY_PORT}"}
        told |= self._rented_from()
        return {f"SPOT_RUNNER_{name}": str(value) for name, value in told.items()} | dict(self._credentials())

    def _relay_environment(self, home: Path) -> dict[str, str]:
        told = {
            "RELAY_HOME": str(home),
            "RELAY_LISTEN": f"{at.RELAY_UNDERLAY}:{at.RELAY_PORT}",
            "RELAY_ADDRESS": str(at.RELAY_UNDERLAY),
            "RELAY_PUBLIC_INTERFACE": "eth1",
            "RELAY_FORBIDDEN": json.dumps([f"{at.CONTROL_INTERNET}/32"]),
        }
        if self.terms.with_overlay:
            self.journal.note(Kind.TUNNEL, link_name(str(home)))
            told |= {"OVERLAY": "wireguard", "OVERLAY_CALLERS": json.dumps([f"{at.CONTROL_UNDERLAY}/32"])}
        return {f"SPOT_RUNNER_{name}": value for name, value in told.items()}


def _python(module: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", module, *arguments)


def _redis(folder: Path) -> tuple[str, ...]:
    """Return the command of a Redis that only its socket reaches and that keeps nothing."""
    socket = ("--port", "0", "--unixsocket", str(folder / "redis.sock"), "--unixsocketperm", "700")
    return ("redis-server", *socket, "--save", "", "--appendonly", "no", "--dir", str(folder))


def _write_keys(folder: Path) -> None:
    """Write the App's key pair and the webhook's secret; only root reads them."""
    folder.mkdir(mode=0o700, parents=True)
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (folder / "app.pem").write_bytes(private)
    (folder / "app-public.pem").write_bytes(public)
    (folder / "webhook").write_text(secrets.token_hex(32))
