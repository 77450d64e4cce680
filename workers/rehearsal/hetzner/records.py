"""What the simulated Hetzner Cloud knows; plain records, changed only by `project`, under the project's lock."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from http import HTTPStatus
from ipaddress import IPv4Address
from typing import Any, Final

Json = dict[str, Any]

# The published error codes that we know of, and the status with which each is answered. Hetzner publishes the codes;
# its own client looks at nothing else, so a status that is another there changes nothing here.
STATUS_OF: Final = {
    "json_error": HTTPStatus.BAD_REQUEST,
    "unauthorized": HTTPStatus.UNAUTHORIZED,
    "forbidden": HTTPStatus.FORBIDDEN,
    "token_readonly": HTTPStatus.FORBIDDEN,
    "protected": HTTPStatus.FORBIDDEN,
    "resource_limit_exceeded": HTTPStatus.FORBIDDEN,
    "not_found": HTTPStatus.NOT_FOUND,
    "uniqueness_error": HTTPStatus.CONFLICT,
    "conflict": HTTPStatus.CONFLICT,
    "deprecated_api_endpoint": HTTPStatus.GONE,
    "resource_unavailable": HTTPStatus.PRECONDITION_FAILED,
    "placement_error": HTTPStatus.PRECONDITION_FAILED,
    "invalid_input": HTTPStatus.UNPROCESSABLE_ENTITY,
    "invalid_server_type": HTTPStatus.UNPROCESSABLE_ENTITY,
    "unsupported_error": HTTPStatus.UNPROCESSABLE_ENTITY,
    "resource_in_use": HTTPStatus.UNPROCESSABLE_ENTITY,
    "locked": HTTPStatus.LOCKED,
    "resource_locked": HTTPStatus.LOCKED,
    "rate_limit_exceeded": HTTPStatus.TOO_MANY_REQUESTS,
    "server_error": HTTPStatus.INTERNAL_SERVER_ERROR,
    "service_error": HTTPStatus.INTERNAL_SERVER_ERROR,
    "unknown_error": HTTPStatus.INTERNAL_SERVER_ERROR,
    "bad_gateway": HTTPStatus.BAD_GATEWAY,
    "maintenance": HTTPStatus.SERVICE_UNAVAILABLE,
    "unavailable": HTTPStatus.SERVICE_UNAVAILABLE,
    "timeout": HTTPStatus.GATEWAY_TIMEOUT,
}


class ApiError(Exception):
    """An answer in Hetzner's form of an error."""

    def __init__(self, code: str, message: str, details: Json | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.details = code, message, details


def bad_field(name: str, problem: str) -> ApiError:
    """Return what is answered to a field that will not do."""
    details = {"fields": [{"name": name, "messages": [problem]}]}
    return ApiError("invalid_input", f"invalid input in field '{name}': {problem}", details)


class ServerStatus(StrEnum):
    """Hetzner's own words, as far as our servers get there."""

    INITIALIZING = "initializing"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    OFF = "off"
    MIGRATING = "migrating"
    DELETING = "deleting"


class ActionStatus(StrEnum):
    RUNNING = "running"
    SUCCESS = "success"
    ERROR = "error"


@dataclass(frozen=True)
class Location:
    id: int
    name: str
    city: str
    country: str
    zone: str
    """`network_zone`."""
    latitude: float
    longitude: float


@dataclass(frozen=True)
class ServerType:
    id: int
    name: str
    cores: int
    memory_gb: float
    disk_gb: int
    cpu_type: str
    prices: dict[str, str]
    """What an hour costs at each location where it is priced, net."""
    architecture: str = "x86"
    is_deprecated: bool = False


@dataclass
class Image:
    id: int
    type: str
    description: str
    disk_gb: int
    created_at: datetime
    name: str | None = None
    """Of system images only."""
    architecture: str = "x86"
    status: str = "available"
    labels: dict[str, str] = field(default_factory=dict)
    created_from: tuple[int, str] | None = None
    """The server's id and name."""


@dataclass
class Firewall:
    id: int
    name: str
    created_at: datetime
    rules: list[Json]
    labels: dict[str, str]


@dataclass
class SshKey:
    id: int
    name: str
    public_key: str
    created_at: datetime
    labels: dict[str, str]


@dataclass
class Volume:
    id: int
    name: str
    size_gb: int
    location: Location
    created_at: datetime
    labels: dict[str, str]
    server: int | None = None
    """What it is attached to; it stays when that is deleted."""
    status: str = "creating"


@dataclass
class Server:
    id: int
    name: str
    type: ServerType
    location: Location
    image: Image
    created_at: datetime
    user_data: str = field(repr=False)
    labels: dict[str, str]
    firewalls: tuple[int, ...]
    has_ipv4: bool
    has_ipv6: bool
    status: ServerStatus = ServerStatus.INITIALIZING
    is_locked: bool = False
    deleted_at: datetime | None = None
    """It is billed until then, whatever its status."""
    ipv4: IPv4Address | None = None
    """None: one that leads nowhere."""

    @property
    def number(self) -> int:
        """Its place among all servers that there ever were; its addresses follow from it."""
        return self.id & 0xFFFF


@dataclass
class Action:
    """Something that takes time; its effect comes when it is due."""

    id: int
    command: str
    resource: tuple[str, int]
    started_at: datetime
    due_at: datetime
    status: ActionStatus = ActionStatus.RUNNING
    finished_at: datetime | None = None
    image_id: int | None = None
    """What `create_image` makes."""
