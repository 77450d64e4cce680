"""Runner groups of organizations, and the routes that show and make them."""

from __future__ import annotations

from http import HTTPStatus

from flask import Blueprint, Response, jsonify, request

from workers.rehearsal.github.login import Login
from workers.rehearsal.github.paging import page_of
from workers.rehearsal.github.records import DEFAULT_GROUP, ApiError, Group, Json
from workers.rehearsal.github.views import Views
from workers.rehearsal.github.world import World

PERMISSION = "organization_self_hosted_runners"

Answer = Response | tuple[Response, int]


class RunnerGroups:
    """Every runner group; each organization has the default one."""

    def __init__(self, world: World, login: Login, views: Views) -> None:
        self._world, self._login, self._views = world, login, views
        self._made: dict[str, dict[int, Group]] = {}

    def blueprint(self) -> Blueprint:
        """Return the routes."""
        routes = Blueprint("runner_groups", __name__)
        routes.get("/orgs/<org>/actions/runner-groups")(self.show)
        routes.post("/_simulator/groups")(self.make)
        return routes

    def require_permission(self, org: str) -> None:
        """Refuse an App that this organization has not let see to its runners."""
        if self._login.require_installation(org).permissions.get(PERMISSION) != "write":
            raise ApiError(HTTPStatus.FORBIDDEN, "Resource not accessible by integration")

    def group(self, owner: str, group_id: int) -> Group:
        """Return one group of an organization."""
        found = next((one for one in self._of(owner) if one.id == group_id), None)
        if found is None:
            raise ApiError(HTTPStatus.NOT_FOUND, "Not Found")
        return found

    def show(self, org: str) -> Answer:
        """List the groups, or those that one repository may use."""
        self.require_permission(org)
        rows = self._of(org)
        if repository := request.args.get("visible_to_repository"):
            rows = [one for one in rows if one.admits(f"{org}/{repository}")]
        shown = [self._view(org, one) for one in page_of(rows)]
        return jsonify({"total_count": len(rows), "runner_groups": shown})

    def make(self) -> Answer:
        """`{"organization", "name", "repositories"?}` makes a group, or lets the one of this name admit others."""
        asked = request.get_json()
        names = asked.get("repositories")
        admitted = None if names is None else frozenset(name.lower() for name in names)
        with self._world.changed:
            mine = self._made.setdefault(asked["organization"].lower(), {})
            known = next((one.id for one in mine.values() if one.name == asked["name"]), None)
            made = Group(known or self._world.free_id(), asked["name"], admitted)
            mine[made.id] = made
        return jsonify({"id": made.id}), HTTPStatus.CREATED

    def _of(self, owner: str) -> list[Group]:
        with self._world.changed:
            return [DEFAULT_GROUP, *self._made.get(owner.lower(), {}).values()]

    def _view(self, org: str, group: Group) -> Json:
        is_default = group.id == DEFAULT_GROUP.id
        place = f"{self._views.url}/orgs/{org}/actions/runner-groups/{group.id}"
        return {
            "id": group.id,
            "name": group.name,
            "visibility": "all" if group.repositories is None else "selected",
            "default": is_default,
            "runners_url": f"{place}/runners",
            "inherited": False,
            "allows_public_repositories": True,
            "restricted_to_workflows": False,
            "selected_workflows": [],
        }
