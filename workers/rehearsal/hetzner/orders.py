"""What a request to create something asks for: read, checked as Hetzner checks it, refused in its words."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any, Final

from workers.rehearsal.hetzner.records import ApiError, Json, bad_field
from workers.rehearsal.hetzner.selectors import checked_labels

HOST_NAME: Final = re.compile(r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?")
USER_DATA_MAX: Final = 32 * 1024
CIDRS_MAX: Final = 100
RULES_MAX: Final = 50
PROTOCOLS: Final = frozenset({"tcp", "udp", "icmp", "esp", "gre"})
WITH_PORTS: Final = frozenset({"tcp", "udp"})
VOLUME_MIN_GB: Final = 10
VOLUME_MAX_GB: Final = 10240
PUBLIC_KEY: Final = re.compile(r"(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp\d+) [A-Za-z0-9+/]+={0,2}( .*)?")
PORT: Final = re.compile(r"any|\d{1,5}(-\d{1,5})?")
_SERVER_FIELDS: Final = frozenset(
    {
        "name",
        "server_type",
        "image",
        "location",
        "labels",
        "user_data",
        "firewalls",
        "ssh_keys",
        "start_after_create",
        "public_net",
        "volumes",
        "automount",
    }
)
_RULE_FIELDS: Final = frozenset({"direction", "protocol", "port", "source_ips", "destination_ips", "description"})


@dataclass(frozen=True)
class ServerOrder:
    """A server that somebody wants."""

    name: str
    server_type: str
    image: str
    location: str | None
    labels: dict[str, str]
    user_data: str = field(repr=False)
    firewalls: tuple[int, ...]
    ssh_keys: tuple[str, ...]
    starts: bool
    has_ipv4: bool
    has_ipv6: bool
    volumes: tuple[int, ...] = ()


@dataclass(frozen=True)
class VolumeOrder:
    """A volume that somebody wants."""

    name: str
    size_gb: int
    location: str
    labels: dict[str, str]


def volume_order(body: Json) -> VolumeOrder:
    """Read what `POST /volumes` was sent; none is made for a server at once here. Raises `ApiError`."""
    only(body, {"name", "size", "location", "labels"})
    size = body.get("size")
    if not isinstance(size, int) or not VOLUME_MIN_GB <= size <= VOLUME_MAX_GB:
        raise bad_field("size", f"must be from {VOLUME_MIN_GB} to {VOLUME_MAX_GB}")
    labels = checked_labels(body.get("labels", {}))
    return VolumeOrder(_needed(body, "name"), size, _needed(body, "location"), labels)


def public_key(body: Json) -> tuple[str, str, dict[str, str]]:
    """Read what `POST /ssh_keys` was sent: name, key, labels. Raises `ApiError`."""
    only(body, {"name", "public_key", "labels"})
    key = _needed(body, "public_key").strip()
    if not PUBLIC_KEY.fullmatch(key):
        raise bad_field("public_key", "is no public key")
    return _needed(body, "name"), key, checked_labels(body.get("labels", {}))


def server_order(body: Json) -> ServerOrder:
    """Read what `POST /servers` was sent. Raises `ApiError`."""
    only(body, _SERVER_FIELDS)
    net = body.get("public_net") or {}
    return ServerOrder(
        name=server_name(body.get("name")),
        server_type=_needed(body, "server_type"),
        image=_needed(body, "image"),
        location=None if body.get("location") is None else str(body["location"]),
        labels=checked_labels(body.get("labels", {})),
        user_data=_user_data(body.get("user_data", "")),
        firewalls=tuple(int(one["firewall"]) for one in body.get("firewalls", ())),
        ssh_keys=tuple(str(one) for one in body.get("ssh_keys", ())),
        starts=bool(body.get("start_after_create", True)),
        has_ipv4=bool(net.get("enable_ipv4", True)),
        has_ipv6=bool(net.get("enable_ipv6", True)),
        volumes=tuple(int(one) for one in body.get("volumes", ())),
    )


def server_name(value: object) -> str:
    """Return a name that a server may have."""
    if not isinstance(value, str) or not HOST_NAME.fullmatch(value):
        raise bad_field("name", "must be a valid hostname as per RFC 1123")
    return value


def checked_rules(value: object) -> list[Json]:
    """Return firewall rules in the form in which they are listed. Raises `ApiError`."""
    if not isinstance(value, list) or len(value) > RULES_MAX:
        raise bad_field("rules", f"must be a list of at most {RULES_MAX}")
    return [_rule(rule) for rule in value]


def only(body: Json, known: Collection[str]) -> None:
    """Refuse fields that the rehearsed API does not have here."""
    if unknown := sorted(set(body) - set(known)):
        raise bad_field(unknown[0], "unknown field")


def _rule(rule: Any) -> Json:  # noqa: ANN401 any JSON
    if not isinstance(rule, dict):
        raise bad_field("rules", "must be objects")
    only(rule, _RULE_FIELDS)
    protocol, port = rule.get("protocol"), rule.get("port")
    if rule.get("direction") not in {"in", "out"} or protocol not in PROTOCOLS:
        raise bad_field("rules", "direction or protocol is unknown")
    if (protocol in WITH_PORTS) != isinstance(port, str) or (port and not PORT.fullmatch(port)):
        raise bad_field("rules.port", "is required for tcp and udp, and only there")
    used, other = ("source_ips", "destination_ips") if rule["direction"] == "in" else ("destination_ips", "source_ips")
    if not rule.get(used) or rule.get(other):
        raise bad_field(f"rules.{used}", f"is required for direction {rule['direction']}, and alone")
    return {
        "direction": rule["direction"],
        "protocol": protocol,
        "port": port,
        "source_ips": _networks(rule.get("source_ips", [])),
        "destination_ips": _networks(rule.get("destination_ips", [])),
        "description": rule.get("description"),
    }


def _networks(value: Any) -> list[str]:  # noqa: ANN401 any JSON
    if not isinstance(value, list) or len(value) > CIDRS_MAX:
        raise bad_field("rules.ips", f"must be a list of at most {CIDRS_MAX}")
    try:
        return [str(ip_network(one)) for one in value]
    except ValueError as error:
        raise bad_field("rules.ips", str(error)) from error


def _user_data(value: object) -> str:
    if not isinstance(value, str) or len(value.encode()) > USER_DATA_MAX:
        raise bad_field("user_data", f"must be text of at most {USER_DATA_MAX} bytes")
    return value


def _needed(body: Json, name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str | int) or value == "":
        raise ApiError("invalid_input", f"missing required field '{name}'", {"fields": [{"name": name}]})
    return str(value)
