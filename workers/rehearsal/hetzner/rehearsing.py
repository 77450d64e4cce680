"""What a rehearsal itself asks of the simulated Hetzner Cloud, under `/_simulator`; Hetzner has nothing like it."""

from __future__ import annotations

from http import HTTPStatus

from flask import Blueprint, request

from workers.rehearsal.hetzner.faults import Fault, FaultKind, Faults
from workers.rehearsal.hetzner.project import Project
from workers.rehearsal.hetzner.rates import RateLimit
from workers.rehearsal.hetzner.records import ApiError, Json, Server
from workers.rehearsal.hetzner.views import address_of

Answer = Json | tuple[Json, int]
NOTHING: Answer = {}, HTTPStatus.NO_CONTENT


class Rehearsing:
    """Plants faults, empties shelves, switches servers off, and tells what is left and what it cost."""

    def __init__(self, project: Project, faults: Faults, rates: RateLimit) -> None:
        self._project, self._faults, self._rates = project, faults, rates

    def blueprint(self) -> Blueprint:
        """Return the routes."""
        routes = Blueprint("rehearsing", __name__, url_prefix="/_simulator")
        routes.post("/faults")(self.plant)
        routes.put("/stock")(self.stock)
        routes.put("/rate")(self.rate)
        routes.post("/images")(self.add_image)
        routes.post("/servers/<name>/off")(self.switch_off)
        routes.get("/servers")(self.servers)
        return routes

    def plant(self) -> Answer:
        """`{"kind", "method", "path", "times"?, "code"?, "message"?, "seconds"?}`."""
        told = request.get_json()
        self._faults.plant(Fault(**{**told, "kind": FaultKind(told["kind"])}))
        return NOTHING

    def stock(self) -> Answer:
        """`{"servers_max"?, "sold_out"?: [[location, type or "*"]], "maintained"?: [location], "hides_sold_out"?}`."""
        told = request.get_json()
        with self._project.lock:
            stock = self._project.stock
            stock.servers_max = told.get("servers_max", stock.servers_max)
            stock.sold_out = {(place, kind) for place, kind in told.get("sold_out", stock.sold_out)}
            stock.maintained = set(told.get("maintained", stock.maintained))
            stock.hides_sold_out = told.get("hides_sold_out", stock.hides_sold_out)
        return NOTHING

    def rate(self) -> Answer:
        """`{"left"}`: so many requests are left now."""
        self._rates.leave(request.get_json()["left"])
        return NOTHING

    def add_image(self) -> Answer:
        """`{"description", "labels", "architecture"?}`: a snapshot that is there already."""
        told = request.get_json()
        with self._project.lock:
            kind = told.get("architecture", "x86")
            image = self._project.add_image(
                "snapshot", told["description"], disk_gb=40, labels=told["labels"], architecture=kind
            )
        return {"id": image.id}

    def switch_off(self, name: str) -> Answer:
        """Let the machine switch itself off."""
        with self._project.lock:
            self._project.settle()
            self._project.switch_off(self._named(name))
        return NOTHING

    def servers(self) -> Answer:
        """Tell of every server that there ever was: what it was told, what it cost, and whether it is left."""
        with self._project.lock:
            self._project.settle()
            bills = list(self._project.bills())
            told = [
                {
                    "name": server.name,
                    "type": server.type.name,
                    "location": server.location.name,
                    "is_left": server.deleted_at is None,
                    "id": server.id,
                    "status": server.status.value,
                    "address": str(address_of(server)),
                    "user_data": server.user_data,
                    "hours": hours,
                    "cost": cost,
                }
                for server, hours, cost in bills
            ]
        return {"servers": told, "requests": self._rates.admitted, "refused": self._rates.refused}

    def _named(self, name: str) -> Server:
        found = next((one for one in self._project.servers.values() if one.name == name), None)
        if found is None:
            raise ApiError("not_found", f"server '{name}' not found")
        return found
