"""One machine's end of the overlay: the kernel's WireGuard where there is one, wireguard-go where not.

    (nothing) ──prepare──▶ link with key, port and address ──set_peers──▶ tunnels ──remove──▶ (nothing)

The private key is made here, once, and never leaves the machine. wireguard-go runs in the foreground, as a process of
its own that outlives us: a daemon that is started again finds it by its control socket. `prepare` may be called at any
time and puts right what has ended meanwhile.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import socket
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from workers.domain.errors import Unfit
from workers.domain.overlay import Peer
from workers.links import Links

# wireguard-go is up within some tens of milliseconds; a busy machine may take its time.
START_LIMIT_S: Final = 10.0
LOOK_INTERVAL_S: Final = 0.02
COMMAND_LIMIT_S: Final = 10.0
# Its control sockets lie in one directory for the whole machine, whatever network namespace a process is in.
SOCKETS: Final = Path("/var/run/wireguard")
LINK_NAME_MAX: Final = 15


@dataclass(frozen=True)
class Seat:
    """Where this machine sits on the overlay."""

    address: str
    prefix_length: int
    port: int
    """UDP; the same from one start to the next."""
    mtu: int


def link_name(owner: str) -> str:
    """Name the link of one host or relay so that no other on the same machine has the name."""
    return "wg" + hashlib.sha256(owner.encode()).hexdigest()[: LINK_NAME_MAX - 2]


def control_socket(link: str) -> Path:
    """Return where wireguard-go takes orders for this link."""
    return SOCKETS / f"{link}.sock"


class Wireguard:
    """One link, in the network namespace of the calling thread. Raises `Unfit` if this machine has neither kind."""

    def __init__(self, owner: str, home: Path) -> None:
        """`home` keeps the private key; only root may read it."""
        self.name = link_name(owner)
        self._home = home
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def public_key(self) -> str:
        """What the others know us by; base64."""
        public = X25519PrivateKey.from_private_bytes(self._private()).public_key()
        return _text(public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw))

    def prepare(self, seat: Seat) -> None:
        """Make the link and give it its seat; what is there already is kept, with its peers."""
        with Links() as links:
            if not self._lives(links):
                links.remove(self.name)
                if not links.try_ensure(self.name, "wireguard"):
                    self._start()
            links.change(self.name, mtu=seat.mtu)
            links.ensure_address(self.name, seat.address, seat.prefix_length)
            self._wg(
                "set", self.name, "listen-port", str(seat.port), "private-key", "/dev/stdin", told=self._key_text()
            )
            links.change(self.name, state="up")

    @property
    def is_up(self) -> bool:
        """Say whether the link is there and takes orders."""
        with Links() as links:
            return self._lives(links)

    def set_peers(self, peers: Iterable[Peer]) -> None:
        """Speak to exactly these; tunnels of those that stay are not disturbed."""
        port = self._wg("show", self.name, "listen-port").strip()
        own = f"[Interface]\nPrivateKey = {self._key_text()}\nListenPort = {port}\n"
        self._wg("syncconf", self.name, "/dev/stdin", told=own + "".join(map(_section, peers)))

    def heard(self) -> dict[str, int]:
        """Return for each peer's key the Unix time of its last handshake, 0 if there was none."""
        lines = self._wg("show", self.name, "latest-handshakes").splitlines()
        return {key: int(at) for key, at in map(str.split, lines)}

    def remove(self) -> None:
        """Remove the link; wireguard-go ends with it. One that is not there is a success."""
        with Links() as links:
            links.remove(self.name)
        if self._child is not None:
            self._child.wait(START_LIMIT_S)
            self._child = None

    # ------------------------------------------------------------ the link

    def _lives(self, links: Links) -> bool:
        if links.index(self.name) is None:
            return False
        return links.kind(self.name) == "wireguard" or self._is_answered()

    def _start(self) -> None:
        """Start wireguard-go and wait until it takes orders."""
        self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self._home / "wireguard.log").open("ab") as log:
            try:
                self._child = subprocess.Popen(
                    ["wireguard-go", "--foreground", self.name],
                    env={**os.environ, "LOG_LEVEL": "error"},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            except FileNotFoundError as error:
                raise Unfit("this kernel has no WireGuard and wireguard-go is not installed; install it") from error
        until = time.monotonic() + START_LIMIT_S
        while not self._is_answered():
            if self._child.poll() is not None or time.monotonic() > until:
                raise Unfit(f"wireguard-go does not start; {self._home / 'wireguard.log'} says why")
            time.sleep(LOOK_INTERVAL_S)

    def _is_answered(self) -> bool:
        if self._child is not None:
            self._child.poll()  # else its remains would stay with us
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as attempt:
            attempt.settimeout(COMMAND_LIMIT_S)
            return attempt.connect_ex(str(control_socket(self.name))) == 0

    # ------------------------------------------------------------ its key

    def _private(self) -> bytes:
        file = self._home / "wireguard.key"
        with contextlib.suppress(FileNotFoundError):
            return file.read_bytes()
        self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
        key = X25519PrivateKey.generate().private_bytes(
            serialization.Encoding.Raw, serialization.PrivateFormat.Raw, serialization.NoEncryption()
        )
        fresh = file.with_suffix(".fresh")
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as writing:
            writing.write(key)
            os.fsync(writing.fileno())
        fresh.replace(file)
        return key

    def _key_text(self) -> str:
        return _text(self._private())

    def _wg(self, *words: str, told: str = "") -> str:
        try:
            return subprocess.run(
                ["wg", *words], input=told, text=True, check=True, capture_output=True, timeout=COMMAND_LIMIT_S
            ).stdout
        except FileNotFoundError as error:
            raise Unfit("wg is not installed; install the package wireguard-tools") from error
        except subprocess.CalledProcessError as error:
            raise Unfit(f"wg {words[0]} {self.name} failed: {error.stderr.strip()}") from error


def _section(peer: Peer) -> str:
    lines = [f"PublicKey = {peer.key}", f"AllowedIPs = {', '.join(peer.allowed)}"]
    if peer.endpoint is not None:
        lines.append(f"Endpoint = {peer.endpoint}")
    if peer.keepalive_s is not None:
        lines.append(f"PersistentKeepalive = {peer.keepalive_s}")
    return "\n".join(["[Peer]", *lines, ""])


def _text(key: bytes) -> str:
    return base64.b64encode(key).decode()
