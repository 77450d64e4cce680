"""The pages of the simulated GitHub that a person meets while an App is set up; whoever browses follows the forms."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Final
from urllib.parse import urlencode

from flask import Blueprint, Response, redirect, render_template_string, request
from werkzeug.wrappers import Response as AnyResponse

from workers.rehearsal.github.apps import Apps, check_manifest
from workers.rehearsal.github.records import ApiError, Json
from workers.rehearsal.github.world import World

# Whoever is logged in at the browser.
PERSON: Final = "octocat"

_CREATE: Final = """<!doctype html><title>Create GitHub App</title>
<h1>Create GitHub App for {{ owner }}</h1>
<form method="post" action="/settings/apps/created">
<input type="hidden" name="manifest" value="{{ manifest }}">
<input type="hidden" name="owner" value="{{ owner }}">
<input type="hidden" name="state" value="{{ state }}">
<button>Create GitHub App for {{ owner }}</button>
</form>"""
_INSTALL: Final = """<!doctype html><title>Install {{ app.name }}</title>
<h1>Install {{ app.name }}</h1>
<ul>{% for name, level in app.permissions.items() %}<li>{{ name }}: {{ level }}</li>{% endfor %}</ul>
<form method="post" action="/apps/{{ app.slug }}/installations">
<input name="account" value="{{ app.owner }}">
<button>Install</button>
</form>"""

Page = str | Response | AnyResponse


class Pages:
    """GitHub's own forms, as plain as can be."""

    def __init__(self, world: World, apps: Apps) -> None:
        self._world = world
        self._apps = apps

    def blueprint(self) -> Blueprint:
        """Return the routes."""
        routes = Blueprint("pages", __name__)
        routes.post("/settings/apps/new")(self.of_person)
        routes.post("/organizations/<owner>/settings/apps/new")(self.ask)
        routes.post("/settings/apps/created")(self.create)
        routes.get("/apps/<slug>/installations/new")(self.ask_where)
        routes.post("/apps/<slug>/installations")(self.install)
        return routes

    def of_person(self) -> Page:
        """Ask the person whether the App is to be theirs."""
        return self.ask(PERSON)

    def ask(self, owner: str) -> Page:
        """Show what is to be made, and ask."""
        text = request.form.get("manifest", "")
        check_manifest(manifest_in(text))
        return render_template_string(_CREATE, owner=owner, manifest=text, state=request.args.get("state", ""))

    def create(self) -> Page:
        """Make it, and send the browser back with a code."""
        manifest = manifest_in(request.form["manifest"])
        code = self._apps.make(manifest, request.form["owner"])
        return redirect(f"{manifest['redirect_url']}?{urlencode({'code': code, 'state': request.form['state']})}")

    def ask_where(self, slug: str) -> Page:
        """Show what the App may do, and ask where it is to be installed."""
        return render_template_string(_INSTALL, app=self._apps.by_slug(slug))

    def install(self, slug: str) -> Page:
        """Install it, and send the browser to where the App wants it."""
        app, account = self._apps.by_slug(slug), request.form["account"]
        if not app.is_public and account != app.owner:
            raise ApiError(HTTPStatus.FORBIDDEN, f"{app.name} is private to {app.owner}")
        made = self._world.install(account, app)
        asked = urlencode({"installation_id": made.id, "setup_action": "install"})
        return redirect(f"{app.setup_url}?{asked}") if app.setup_url else f"installed in {account}"


def manifest_in(text: str) -> Json:
    """Read a manifest."""
    try:
        manifest = json.loads(text)
    except ValueError as error:
        raise ApiError(HTTPStatus.UNPROCESSABLE_ENTITY, "Invalid GitHub App configuration: no JSON") from error
    if not isinstance(manifest, dict):
        raise ApiError(HTTPStatus.UNPROCESSABLE_ENTITY, "Invalid GitHub App configuration: no object")
    return manifest
