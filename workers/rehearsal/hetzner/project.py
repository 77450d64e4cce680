"""One simulated Hetzner project: its servers, images and firewalls, and the rules by which they change.

    server   initializing ──▶ starting ──▶ running ──▶ stopping ──▶ off        every one: ──▶ deleting ──▶ gone
                                  ▲────────────────────────────────┘
                           (poweron)      (poweroff at once, shutdown after a while)

Whatever takes time is an action. Actions are looked at whenever somebody asks, and take effect when they are due. A
server is billed for each hour that it has begun, from its creation to its deletion, off or not. One lock guards all.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from ipaddress import IPv4Network
from typing import Any, Final, TypeVar

from workers.ports import Clock
from workers.rehearsal.hetzner.catalogue import LOCATIONS, SERVER_TYPES
from workers.rehearsal.hetzner.orders import ServerOrder, VolumeOrder
from workers.rehearsal.hetzner.records import (
    Action,
    ActionStatus,
    ApiError,
    Firewall,
    Image,
    Json,
    Location,
    Server,
    ServerStatus,
    ServerType,
    SshKey,
    Volume,
    bad_field,
)

FIRST_ID: Final = 0x2A00000
SNAPSHOT_GB: Final = 40
Named = TypeVar("Named", Location, ServerType, Image)


@dataclass(frozen=True)
class Spans:
    """How long things take."""

    create: timedelta = timedelta(seconds=3)
    start: timedelta = timedelta(seconds=5)
    shutdown: timedelta = timedelta(seconds=2)
    snapshot: timedelta = timedelta(seconds=30)
    delete: timedelta = timedelta(seconds=1)
    volume: timedelta = timedelta(seconds=2)


@dataclass
class Stock:
    """What cannot be had at the moment, and how much may be had at all."""

    servers_max: int = 25
    sold_out: set[tuple[str, str]] = field(default_factory=set)
    """(location, server type); `*` for all types."""
    maintained: set[str] = field(default_factory=set)
    """Locations in which nothing can be changed now."""
    hides_sold_out: bool = False
    """Whether server types are called available that are not."""

    def has(self, location: str, server_type: str) -> bool:
        """Say whether such a server can be had there."""
        return not {(location, server_type), (location, "*")} & self.sold_out


class Project:
    """Everything in one project."""

    def __init__(self, clock: Clock, spans: Spans | None = None, network: IPv4Network | None = None) -> None:
        """`network`: where the servers' addresses are from, each given once; None: they lead nowhere."""
        self.clock, self.spans = clock, spans or Spans()
        self._addresses = network.hosts() if network is not None else iter(())
        self.stock = Stock()
        self.lock = threading.RLock()
        self.servers: dict[int, Server] = {}
        self.deleted: list[Server] = []
        self.images: dict[int, Image] = {}
        self.firewalls: dict[int, Firewall] = {}
        self.ssh_keys: set[str] = set()
        """What a server's order may call a key."""
        self.given_keys: dict[int, SshKey] = {}
        self.volumes: dict[int, Volume] = {}
        self.actions: dict[int, Action] = {}
        self._ids = itertools.count(FIRST_ID)
        self.add_image("system", "Debian 12", name="debian-12", disk_gb=5)

    def settle(self) -> None:
        """Let everything take effect that is due by now."""
        now = self.clock.now()
        due = [one for one in self.actions.values() if one.status is ActionStatus.RUNNING and one.due_at <= now]
        for action in sorted(due, key=lambda one: (one.due_at, one.id)):
            action.finished_at = action.due_at
            action.status = ActionStatus.SUCCESS if self._takes_effect(action) else ActionStatus.ERROR

    def add_image(self, kind: str, description: str, *, disk_gb: int, **more: Any) -> Image:  # noqa: ANN401 its fields
        """Put an image there, as if it had been made."""
        image = Image(next(self._ids), kind, description, disk_gb, self.clock.now(), **more)
        self.images[image.id] = image
        return image

    # ------------------------------------------------------------ servers

    def create_server(self, order: ServerOrder) -> tuple[Server, Action, list[Action]]:
        """Create a server: it, its creation, and its start. Raises `ApiError`."""
        kind = named(SERVER_TYPES, order.server_type, "server type")
        image = named(self.images.values(), order.image, "image")
        location = self._location(order, kind)
        self._check_order(order, kind, image)
        self._check_place(location, kind)
        server = Server(
            next(self._ids),
            order.name,
            kind,
            location,
            image,
            self.clock.now(),
            order.user_data,
            order.labels,
            order.firewalls,
            order.has_ipv4,
            order.has_ipv6,
            ipv4=next(self._addresses, None) if order.has_ipv4 else None,
        )
        self.servers[server.id] = server
        for number in order.volumes:
            self.volumes[number].server = server.id
        created = self._begin("create_server", server, self.spans.create)
        started = self._begin("start_server", server, self.spans.create + self.spans.start) if order.starts else None
        return server, created, [started] if started is not None else []

    def change_server(self, server: Server, name: str | None, labels: dict[str, str] | None) -> None:
        """Give a server another name or other labels."""
        if name is not None and name != server.name:
            self._check_name(name)
            server.name = name
        if labels is not None:
            server.labels = labels

    def delete_server(self, server: Server) -> Action:
        """Delete a server: it is not billed from now on, and listed until it is gone."""
        self._check_unlocked(server)
        server.status, server.deleted_at = ServerStatus.DELETING, self.clock.now()
        self.deleted.append(server)
        return self._begin("delete_server", server, self.spans.delete)

    def power(self, server: Server, command: str) -> Action:
        """Begin `poweron`, `poweroff` or `shutdown`."""
        self._check_unlocked(server)
        if command == "poweron":
            server.status = ServerStatus.STARTING
            return self._begin("start_server", server, self.spans.start)
        server.status = ServerStatus.STOPPING
        if command == "shutdown":
            return self._begin("shutdown_server", server, self.spans.shutdown)
        return self._begin("stop_server", server, timedelta(0))

    def switch_off(self, server: Server) -> None:
        """Let a server switch itself off, as the machine in it may."""
        server.status = ServerStatus.OFF

    def create_image(self, server: Server, description: str, labels: dict[str, str]) -> tuple[Image, Action]:
        """Begin a snapshot; the server is locked as long as it takes."""
        self._check_unlocked(server)
        origin = (server.id, server.name)
        image = self.add_image(
            "snapshot", description, disk_gb=SNAPSHOT_GB, status="creating", labels=labels, created_from=origin
        )
        server.is_locked = True
        action = self._begin("create_image", server, self.spans.snapshot)
        action.image_id = image.id
        return image, action

    # ------------------------------------------------------------ images and firewalls

    def delete_image(self, image: Image) -> None:
        """Delete a snapshot."""
        if image.type == "system":
            raise ApiError("protected", "system images cannot be deleted")
        del self.images[image.id]

    def create_firewall(self, name: str, rules: list[Json], labels: dict[str, str]) -> Firewall:
        """Create a firewall."""
        if any(one.name == name for one in self.firewalls.values()):
            raise taken("firewall", name)
        firewall = Firewall(next(self._ids), name, self.clock.now(), rules, labels)
        self.firewalls[firewall.id] = firewall
        return firewall

    def set_rules(self, firewall: Firewall, rules: list[Json]) -> Action:
        """Change a firewall's rules; they hold at once."""
        firewall.rules = rules
        return self._act("set_firewall_rules", ("firewall", firewall.id), timedelta(0))

    def delete_firewall(self, firewall: Firewall) -> None:
        """Delete a firewall that nobody uses."""
        if any(firewall.id in one.firewalls for one in self.servers.values()):
            raise ApiError("resource_in_use", f"firewall {firewall.name} is in use")
        del self.firewalls[firewall.id]

    # ------------------------------------------------------------ SSH keys and volumes

    def create_ssh_key(self, name: str, public_key: str, labels: dict[str, str]) -> SshKey:
        """Take a key. Raises `ApiError` if its name, or it, is there."""
        if any(one.name == name for one in self.given_keys.values()):
            raise taken("SSH key", name)
        if any(one.public_key.split()[:2] == public_key.split()[:2] for one in self.given_keys.values()):
            raise ApiError("uniqueness_error", "SSH key not unique", {"fields": [{"name": "public_key"}]})
        key = SshKey(next(self._ids), name, public_key, self.clock.now(), labels)
        self.given_keys[key.id] = key
        self.ssh_keys |= {name, str(key.id)}
        return key

    def delete_ssh_key(self, key: SshKey) -> None:
        """Forget a key; servers keep it."""
        del self.given_keys[key.id]
        self.ssh_keys -= {key.name, str(key.id)}

    def create_volume(self, order: VolumeOrder) -> tuple[Volume, Action]:
        """Begin a volume."""
        if any(one.name == order.name for one in self.volumes.values()):
            raise taken("volume", order.name)
        location = named(LOCATIONS, order.location, "location")
        self._check_maintenance(location)
        volume = Volume(next(self._ids), order.name, order.size_gb, location, self.clock.now(), order.labels)
        self.volumes[volume.id] = volume
        return volume, self._act("create_volume", ("volume", volume.id), self.spans.volume)

    def delete_volume(self, volume: Volume) -> None:
        """Delete a volume that no server has."""
        if volume.server is not None:
            raise ApiError("resource_in_use", f"volume {volume.name} is attached to a server")
        del self.volumes[volume.id]

    # ------------------------------------------------------------ what it costs

    def bills(self) -> Iterator[tuple[Server, int, float]]:
        """Yield every server that there ever was with the hours that it has begun and what they cost."""
        now = self.clock.now()
        gone = [one for one in self.deleted if one.id not in self.servers]
        for server in (*gone, *self.servers.values()):
            hours = begun_hours(server.created_at, server.deleted_at or now)
            yield server, hours, hours * float(server.type.prices[server.location.name])

    # ------------------------------------------------------------ inside

    def _location(self, order: ServerOrder, kind: ServerType) -> Location:
        """Without a wish Hetzner chooses."""
        if order.location is not None:
            return named(LOCATIONS, order.location, "location")
        fit = [one for one in LOCATIONS if one.name in kind.prices and self.stock.has(one.name, kind.name)]
        return fit[0] if fit else LOCATIONS[0]

    def _check_order(self, order: ServerOrder, kind: ServerType, image: Image) -> None:
        self._check_name(order.name)
        if kind.is_deprecated:
            raise ApiError("invalid_input", f"server type '{kind.name}' is deprecated")
        if image.architecture != kind.architecture:
            raise ApiError("invalid_input", f"image is not compatible with the architecture {kind.architecture}")
        if image.disk_gb > kind.disk_gb:
            raise ApiError("invalid_input", f"image disk is bigger than server type disk ({kind.disk_gb} GB)")
        if image.status != "available":
            raise ApiError("resource_unavailable", f"image {image.id} is not available yet")
        if unknown := [one for one in order.firewalls if one not in self.firewalls]:
            raise bad_field("firewalls", f"firewall {unknown[0]} not found")
        self._check_volumes(order)
        if missing := set(order.ssh_keys) - self.ssh_keys:
            raise ApiError("invalid_input", f"SSH key '{min(missing)}' not found")
        if len(self.servers) >= self.stock.servers_max:
            raise ApiError("resource_limit_exceeded", "server limit exceeded", {"limits": [{"name": "server_limit"}]})

    def _check_volumes(self, order: ServerOrder) -> None:
        for number in order.volumes:
            volume = self.volumes.get(number)
            if volume is None:
                raise bad_field("volumes", f"volume {number} not found")
            if volume.location.name != order.location:
                raise ApiError("invalid_input", "volume and server are in different locations")
            if volume.server is not None or volume.status != "available":
                raise ApiError("locked", f"volume {volume.name} is attached, or not available yet")

    def _check_place(self, location: Location, kind: ServerType) -> None:
        self._check_maintenance(location)
        if location.name not in kind.prices:
            raise ApiError("invalid_input", "unsupported location for server type")
        if not self.stock.has(location.name, kind.name):
            raise ApiError("resource_unavailable", "error during placement")

    def _check_name(self, name: str) -> None:
        if any(one.name == name for one in self.servers.values()):
            raise taken("server", name)

    def _check_maintenance(self, location: Location) -> None:
        if location.name in self.stock.maintained:
            raise ApiError("maintenance", f"cannot perform operation due to maintenance in {location.name}")

    def _check_unlocked(self, server: Server) -> None:
        self._check_maintenance(server.location)
        if server.is_locked or server.status is ServerStatus.DELETING:
            raise ApiError("locked", f"server {server.name} is locked: an action is running")

    def _begin(self, command: str, server: Server, span: timedelta) -> Action:
        return self._act(command, ("server", server.id), span)

    def _act(self, command: str, resource: tuple[str, int], span: timedelta) -> Action:
        now = self.clock.now()
        action = Action(next(self._ids), command, resource, now, now + span)
        self.actions[action.id] = action
        return action

    def _takes_effect(self, action: Action) -> bool:
        if action.command == "create_volume" and (volume := self.volumes.get(action.resource[1])):
            volume.status = "available"
        server = self.servers.get(action.resource[1])
        if server is None:
            return action.resource[0] != "server"
        if action.command == "delete_server":
            del self.servers[server.id]
            for volume in self.volumes.values():
                volume.server = None if volume.server == server.id else volume.server
        elif action.command == "create_image":
            server.is_locked = False
            self.images[action.image_id or 0].status = "available"
        elif server.status is not ServerStatus.DELETING:
            server.status = self._after(action)
        return True

    def _after(self, action: Action) -> ServerStatus:
        if action.command == "start_server":
            return ServerStatus.RUNNING
        pending = (one for one in self.actions.values() if one.status is ActionStatus.RUNNING)
        starts = any(one.command == "start_server" and one.resource == action.resource for one in pending)
        return ServerStatus.STARTING if action.command == "create_server" and starts else ServerStatus.OFF


def begun_hours(since: datetime, until: datetime) -> int:
    """Return how many hours are billed for this time: each that was begun."""
    return max(1, -((since - until) // timedelta(hours=1)))


def named(rows: Iterable[Named], wanted: str, kind: str) -> Named:
    """Return the row with this id or name. Raises `ApiError`."""
    found = next((row for row in rows if wanted in {str(row.id), row.name}), None)
    if found is None:
        raise ApiError("invalid_input", f"{kind} '{wanted}' not found")
    return found


def taken(kind: str, name: str) -> ApiError:
    """Return what is answered to a name that something has already."""
    return ApiError("uniqueness_error", f"{kind} name '{name}' is already used", {"fields": [{"name": "name"}]})
