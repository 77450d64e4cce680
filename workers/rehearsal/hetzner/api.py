"""The part of Hetzner's API that we use, over one project."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

from flask import Blueprint, request

from workers.rehearsal.hetzner.catalogue import LOCATIONS, SERVER_TYPES
from workers.rehearsal.hetzner.orders import (
    checked_rules,
    only,
    public_key,
    server_name,
    server_order,
    volume_order,
)
from workers.rehearsal.hetzner.project import Project
from workers.rehearsal.hetzner.records import ApiError, Firewall, Image, Json, Server
from workers.rehearsal.hetzner.selectors import checked_labels, selector_of
from workers.rehearsal.hetzner.views import (
    action_view,
    firewall_view,
    image_view,
    location_view,
    server_type_view,
    server_view,
    ssh_key_view,
    volume_view,
)

PER_PAGE: Final = 25
PER_PAGE_MAX: Final = 50
_LIST_FIELDS: Final = frozenset({"page", "per_page", "sort", "name"})

Row = TypeVar("Row")
Answer = Json | tuple[Json, int]


class Api:
    """Every call is carried out under the project's lock, after what was due has taken effect."""

    def __init__(self, project: Project) -> None:
        self._project = project

    def blueprint(self) -> Blueprint:
        """Return the routes."""
        routes = Blueprint("api", __name__, url_prefix="/v1")
        for method, path, view in (
            ("GET", "/locations", self._locations),
            ("GET", "/server_types", self._server_types),
            ("GET", "/servers", self._servers),
            ("POST", "/servers", self._create_server),
            ("GET", "/servers/<int:key>", self._server),
            ("PUT", "/servers/<int:key>", self._change_server),
            ("DELETE", "/servers/<int:key>", self._delete_server),
            ("GET", "/servers/<int:key>/actions", self._server_actions),
            ("POST", "/servers/<int:key>/actions/create_image", self._create_image),
            ("POST", "/servers/<int:key>/actions/<any(poweron, poweroff, shutdown):command>", self._power),
            ("GET", "/actions/<int:key>", self._action),
            ("GET", "/images", self._images),
            ("GET", "/images/<int:key>", self._image),
            ("DELETE", "/images/<int:key>", self._delete_image),
            ("GET", "/firewalls", self._firewalls),
            ("POST", "/firewalls", self._create_firewall),
            ("GET", "/firewalls/<int:key>", self._firewall),
            ("DELETE", "/firewalls/<int:key>", self._delete_firewall),
            ("POST", "/firewalls/<int:key>/actions/set_rules", self._set_rules),
            ("GET", "/ssh_keys", self._ssh_keys),
            ("POST", "/ssh_keys", self._create_ssh_key),
            ("DELETE", "/ssh_keys/<int:key>", self._delete_ssh_key),
            ("GET", "/volumes", self._volumes),
            ("POST", "/volumes", self._create_volume),
            ("GET", "/volumes/<int:key>", self._volume),
            ("DELETE", "/volumes/<int:key>", self._delete_volume),
        ):
            routes.add_url_rule(path, f"{method} {path.replace('.', '')}", self._settled(view), methods=[method])
        return routes

    def _settled(self, view: Callable[..., Answer]) -> Callable[..., Answer]:
        def settled(**named: Any) -> Answer:  # noqa: ANN401 what the route's path names
            with self._project.lock:
                self._project.settle()
                return view(**named)

        return settled

    # ------------------------------------------------------------ what there is to have

    def _locations(self) -> Answer:
        return _listed("locations", _filtered(LOCATIONS), location_view)

    def _server_types(self) -> Answer:
        stock = self._project.stock
        return _listed("server_types", _filtered(SERVER_TYPES), lambda one: server_type_view(one, stock))

    # ------------------------------------------------------------ servers

    def _servers(self) -> Answer:
        rows = _filtered(self._project.servers.values(), "label_selector", "status")
        if wanted := request.args.getlist("status"):
            rows = [row for row in rows if row.status.value in wanted]
        return _listed("servers", rows, self._server_view)

    def _create_server(self) -> Answer:
        order = server_order(_body())
        server, created, after = self._project.create_server(order)
        now = self._project.clock.now()
        return {
            "server": self._server_view(server),
            "action": action_view(created, now),
            "next_actions": [action_view(one, now) for one in after],
            "root_password": None if order.ssh_keys else "simulated",
        }, 201

    def _server(self, key: int) -> Answer:
        return {"server": self._server_view(self._the_server(key))}

    def _change_server(self, key: int) -> Answer:
        server, body = self._the_server(key), _body()
        only(body, {"name", "labels"})
        name = server_name(body["name"]) if "name" in body else None
        labels = checked_labels(body["labels"]) if "labels" in body else None
        self._project.change_server(server, name, labels)
        return {"server": self._server_view(server)}

    def _delete_server(self, key: int) -> Answer:
        action = self._project.delete_server(self._the_server(key))
        return {"action": action_view(action, self._project.clock.now())}

    def _server_actions(self, key: int) -> Answer:
        self._the_server(key)
        rows = [one for one in self._project.actions.values() if one.resource == ("server", key)]
        return _listed("actions", rows, lambda one: action_view(one, self._project.clock.now()))

    def _power(self, key: int, command: str) -> Answer:
        action = self._project.power(self._the_server(key), command)
        return {"action": action_view(action, self._project.clock.now())}, 201

    def _create_image(self, key: int) -> Answer:
        server, body = self._the_server(key), _body()
        only(body, {"description", "type", "labels"})
        labels = checked_labels(body.get("labels", {}))
        image, action = self._project.create_image(server, str(body.get("description", server.name)), labels)
        return {"image": image_view(image), "action": action_view(action, self._project.clock.now())}, 201

    def _action(self, key: int) -> Answer:
        return {"action": action_view(_the(self._project.actions, key), self._project.clock.now())}

    # ------------------------------------------------------------ images and firewalls

    def _images(self) -> Answer:
        rows = _filtered(self._project.images.values(), "label_selector", "type", "architecture", "status")
        for name in ("type", "architecture", "status"):
            if wanted := request.args.getlist(name):
                rows = [row for row in rows if getattr(row, name) in wanted]
        return _listed("images", rows, image_view)

    def _image(self, key: int) -> Answer:
        return {"image": image_view(self._the_image(key))}

    def _delete_image(self, key: int) -> Answer:
        self._project.delete_image(self._the_image(key))
        return {}, 204

    def _firewalls(self) -> Answer:
        return _listed("firewalls", _filtered(self._project.firewalls.values(), "label_selector"), self._firewall_view)

    def _create_firewall(self) -> Answer:
        body = _body()
        only(body, {"name", "labels", "rules"})
        rules, labels = checked_rules(body.get("rules", [])), checked_labels(body.get("labels", {}))
        firewall = self._project.create_firewall(str(body.get("name", "")), rules, labels)
        return {"firewall": self._firewall_view(firewall), "actions": []}, 201

    def _firewall(self, key: int) -> Answer:
        return {"firewall": self._firewall_view(self._the_firewall(key))}

    def _delete_firewall(self, key: int) -> Answer:
        self._project.delete_firewall(self._the_firewall(key))
        return {}, 204

    def _set_rules(self, key: int) -> Answer:
        body = _body()
        only(body, {"rules"})
        action = self._project.set_rules(self._the_firewall(key), checked_rules(body.get("rules")))
        return {"actions": [action_view(action, self._project.clock.now())]}, 201

    # ------------------------------------------------------------ SSH keys and volumes

    def _ssh_keys(self) -> Answer:
        rows = _filtered(self._project.given_keys.values(), "label_selector", "fingerprint")
        return _listed("ssh_keys", rows, ssh_key_view)

    def _create_ssh_key(self) -> Answer:
        return {"ssh_key": ssh_key_view(self._project.create_ssh_key(*public_key(_body())))}, 201

    def _delete_ssh_key(self, key: int) -> Answer:
        self._project.delete_ssh_key(_the(self._project.given_keys, key))
        return {}, 204

    def _volumes(self) -> Answer:
        return _listed("volumes", _filtered(self._project.volumes.values(), "label_selector", "status"), volume_view)

    def _create_volume(self) -> Answer:
        volume, action = self._project.create_volume(volume_order(_body()))
        told = action_view(action, self._project.clock.now())
        return {"volume": volume_view(volume), "action": told, "next_actions": []}, 201

    def _volume(self, key: int) -> Answer:
        return {"volume": volume_view(_the(self._project.volumes, key))}

    def _delete_volume(self, key: int) -> Answer:
        self._project.delete_volume(_the(self._project.volumes, key))
        return {}, 204

    # ------------------------------------------------------------ inside

    def _server_view(self, server: Server) -> Json:
        return server_view(server, self._project.stock, list(self._project.volumes.values()))

    def _firewall_view(self, firewall: Firewall) -> Json:
        return firewall_view(firewall, list(self._project.servers.values()))

    def _the_server(self, key: int) -> Server:
        return _the(self._project.servers, key)

    def _the_image(self, key: int) -> Image:
        return _the(self._project.images, key)

    def _the_firewall(self, key: int) -> Firewall:
        return _the(self._project.firewalls, key)


def _body() -> Json:
    body = request.get_json(force=True, silent=True) if request.get_data() else {}
    if not isinstance(body, dict):
        raise ApiError("json_error", "invalid JSON input in your request")
    return body


def _the(rows: Mapping[int, Row], key: int) -> Row:
    if key not in rows:
        raise ApiError("not_found", f"resource with ID '{key}' not found")
    return rows[key]


def _filtered(rows: Iterable[Any], *more: str) -> list[Any]:
    """Return the rows that the request's `name` and `label_selector` want, and refuse parameters that are not here."""
    only(request.args, _LIST_FIELDS | set(more))
    found = list(rows)
    if name := request.args.get("name"):
        found = [row for row in found if row.name == name]
    if selector := request.args.get("label_selector"):
        matches = selector_of(selector)
        found = [row for row in found if matches(row.labels)]
    return found


def _listed(name: str, rows: Sequence[Row], view: Callable[[Row], Json]) -> Json:
    page, size = _positive("page", 1), min(_positive("per_page", PER_PAGE), PER_PAGE_MAX)
    last = max(1, -(-len(rows) // size))
    pagination = {
        "page": page,
        "per_page": size,
        "previous_page": page - 1 if page > 1 else None,
        "next_page": page + 1 if page < last else None,
        "last_page": last,
        "total_entries": len(rows),
    }
    shown = [view(row) for row in rows[(page - 1) * size : page * size]]
    return {name: shown, "meta": {"pagination": pagination}}


def _positive(name: str, usual: int) -> int:
    text = request.args.get(name, str(usual))
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise ApiError("invalid_input", f"invalid input in field '{name}'", {"fields": [{"name": name}]})
    return int(text)
