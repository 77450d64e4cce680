"""The project's rows in the form in which Hetzner's API shows them: every field that its client knows, and no other."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from workers.rehearsal.hetzner.catalogue import LOCATIONS
from workers.rehearsal.hetzner.project import Stock
from workers.rehearsal.hetzner.records import (
    Action,
    ActionStatus,
    Firewall,
    Image,
    Json,
    Location,
    Server,
    ServerType,
    SshKey,
    Volume,
)

# Networks for documentation: what the simulator hands out leads nowhere.
FIRST_IPV4: Final = IPv4Address("198.18.0.0")
FIRST_IPV6: Final = IPv6Address("2001:db8::")
VAT: Final = 1.19
TRAFFIC_BYTES: Final = 20 * 1024**4
GONE_SOON: Final = {"announced": "2026-06-01T00:00:00+00:00", "unavailable_after": "2026-09-01T00:00:00+00:00"}


def location_view(one: Location) -> Json:
    """Show a location."""
    return {
        "id": one.id,
        "name": one.name,
        "description": f"{one.city} DC Park",
        "country": one.country,
        "city": one.city,
        "latitude": one.latitude,
        "longitude": one.longitude,
        "network_zone": one.zone,
    }


def server_type_view(one: ServerType, stock: Stock) -> Json:
    """Show a server type, and where it can be had at the moment."""
    return {
        "id": one.id,
        "name": one.name,
        "description": one.name.upper(),
        "category": "Cost-Optimized" if one.cpu_type == "shared" else "General Purpose",
        "cores": one.cores,
        "memory": one.memory_gb,
        "disk": one.disk_gb,
        "prices": [_price(name, price) for name, price in one.prices.items()],
        "storage_type": "local",
        "cpu_type": one.cpu_type,
        "architecture": one.architecture,
        "locations": [
            {
                "id": place.id,
                "name": place.name,
                "deprecation": GONE_SOON if one.is_deprecated else None,
                "available": not one.is_deprecated and (stock.hides_sold_out or stock.has(place.name, one.name)),
                "recommended": False,
            }
            for place in LOCATIONS
            if place.name in one.prices
        ],
    }


def image_view(one: Image) -> Json:
    """Show an image."""
    origin = None if one.created_from is None else {"id": one.created_from[0], "name": one.created_from[1]}
    return {
        "id": one.id,
        "name": one.name,
        "type": one.type,
        "description": one.description,
        "image_size": round(one.disk_gb / 10, 2) if one.type == "snapshot" and one.status == "available" else None,
        "disk_size": one.disk_gb,
        "bound_to": None,
        "os_flavor": "debian",
        "os_version": "12",
        "architecture": one.architecture,
        "rapid_deploy": one.type == "system",
        "created_from": origin,
        "status": one.status,
        "protection": {"delete": False},
        "labels": one.labels,
        "created": _moment(one.created_at),
        "deprecation": None,
    }


def firewall_view(one: Firewall, servers: list[Server]) -> Json:
    """Show a firewall and what it holds for."""
    return {
        "id": one.id,
        "name": one.name,
        "labels": one.labels,
        "rules": one.rules,
        "applied_to": [{"type": "server", "server": {"id": row.id}} for row in servers if one.id in row.firewalls],
        "created": _moment(one.created_at),
    }


def ssh_key_view(one: SshKey) -> Json:
    """Show an SSH key."""
    return {
        "id": one.id,
        "name": one.name,
        "fingerprint": hashlib.md5(one.public_key.split()[1].encode(), usedforsecurity=False).hexdigest(),
        "public_key": one.public_key,
        "labels": one.labels,
        "created": _moment(one.created_at),
    }


def volume_view(one: Volume) -> Json:
    """Show a volume."""
    return {
        "id": one.id,
        "name": one.name,
        "server": one.server,
        "created": _moment(one.created_at),
        "location": location_view(one.location),
        "size": one.size_gb,
        "linux_device": f"/dev/disk/by-id/scsi-0HC_Volume_{one.id}",
        "protection": {"delete": False},
        "labels": one.labels,
        "status": one.status,
        "format": None,
    }


def server_view(one: Server, stock: Stock, volumes: Sequence[Volume] = ()) -> Json:
    """Show a server."""
    return {
        "id": one.id,
        "name": one.name,
        "status": one.status.value,
        "public_net": _public_net(one),
        "server_type": server_type_view(one.type, stock),
        "location": location_view(one.location),
        "image": image_view(one.image),
        "iso": None,
        "rescue_enabled": False,
        "locked": one.is_locked,
        "backup_window": None,
        "outgoing_traffic": 0,
        "ingoing_traffic": 0,
        "included_traffic": TRAFFIC_BYTES,
        "protection": {"delete": False, "rebuild": False},
        "labels": one.labels,
        "volumes": [volume.id for volume in volumes if volume.server == one.id],
        "private_net": [],
        "created": _moment(one.created_at),
        "primary_disk_size": one.type.disk_gb,
        "placement_group": None,
    }


def action_view(one: Action, now: datetime) -> Json:
    """Show an action."""
    is_error = one.status is ActionStatus.ERROR
    kind, number = one.resource
    return {
        "id": one.id,
        "command": one.command,
        "status": one.status.value,
        "progress": _progress(one, now),
        "started": _moment(one.started_at),
        "finished": None if one.finished_at is None else _moment(one.finished_at),
        "resources": [{"id": number, "type": kind}],
        "error": {"code": "action_failed", "message": "Action failed"} if is_error else None,
    }


def _progress(one: Action, now: datetime) -> int:
    span = one.due_at - one.started_at
    if one.status is not ActionStatus.RUNNING or not span:
        return 100
    return int(100 * max(timedelta(0), now - one.started_at) / span)


def _public_net(one: Server) -> Json:
    ipv4, ipv6 = address_of(one), FIRST_IPV6 + (one.number << 64)
    name = f"static.{one.number}.clients.example"
    return {
        "ipv4": {"id": one.id, "ip": str(ipv4), "blocked": False, "dns_ptr": name} if one.has_ipv4 else None,
        "ipv6": {"id": one.id, "ip": f"{ipv6}/64", "blocked": False, "dns_ptr": []} if one.has_ipv6 else None,
        "floating_ips": [],
        "firewalls": [{"id": number, "status": "applied"} for number in one.firewalls],
    }


def address_of(one: Server) -> IPv4Address:
    """Return the address at which a server is reached, if it has one."""
    return one.ipv4 or FIRST_IPV4 + one.number


def _price(location: str, hour: str) -> Json:
    return {
        "location": location,
        "price_hourly": _amount(float(hour)),
        "price_monthly": _amount(float(hour) * 624),
        "included_traffic": TRAFFIC_BYTES,
        "price_per_tb_traffic": _amount(1.0),
    }


def _amount(net: float) -> dict[str, str]:
    return {"net": f"{net:.10f}", "gross": f"{net * VAT:.16f}"}


def _moment(at: datetime) -> str:
    return at.isoformat(timespec="seconds")
