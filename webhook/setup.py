"""`/setup`: a person makes the GitHub App in the browser.

    token ──▶ name and owner ──▶ GitHub (its own page) ──code──▶ made ──▶ install at GitHub ──▶ what is missing

Nobody comes in without the token that `spot-runner setup` prints, nobody at all once there is an App but who has made
it. The pages have no scripts, and the only form that leaves us goes to GitHub.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from flask import Blueprint, Response, make_response, redirect, render_template, request, url_for
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as AnyResponse

from webhook.described import SETUP
from webhook.openapi import tell
from workers.domain.errors import BadInput, Refused, SpotError, TryLater

COOKIE: Final = "spot-runner-setup"
COOKIE_LIMIT_S: Final = 3600
# GitHub's codes are 40 characters; it becomes part of a path.
CODE: Final = re.compile(r"[A-Za-z0-9_-]{1,200}")
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    # The whole address holds GitHub's code; without any, a browser says that the form comes from nowhere.
    "Referrer-Policy": "strict-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

Page = Response | AnyResponse


@dataclass(frozen=True)
class AppForm:
    """What the browser is to post to GitHub."""

    action: str
    state: str
    manifest: dict[str, Any]


@dataclass(frozen=True)
class Checked:
    """What GitHub says of the App that there is."""

    name: str
    page: str
    install_page: str
    accounts: Sequence[str]
    lacks: Sequence[str]
    """One sentence for each thing that is missing, with what to do."""


class Desk(Protocol):
    """What the pages need. Raises `BadInput`, `Refused` and `TryLater` with a sentence for the person."""

    @property
    def public_url(self) -> str:
        """How GitHub and people reach us. Raises `Refused` if that is not set."""

    @property
    def github_web(self) -> str:
        """Where people open GitHub."""

    def is_done(self) -> bool:
        """Say whether there is an App."""

    def enter(self, token: str) -> str:
        """Use the token up, and return the session that comes of it. Raises `Refused`, also if there is an App."""

    def is_inside(self, session: str | None) -> bool:
        """Say whether this session was let in and still is."""

    def form(self, session: str, name: str, organization: str, *, is_public: bool) -> AppForm:
        """Return what is to be posted to GitHub for such an App."""

    def made(self, session: str, state: str, code: str) -> None:
        """Take the App that GitHub has made, and keep it. Raises `Refused` if there is one, or the state is wrong."""

    def check(self) -> Checked:
        """Ask GitHub what is missing."""


def setup_routes(desk: Desk) -> Blueprint:
    """Return the routes below `/setup`."""
    routes = Blueprint("setup", __name__, url_prefix="/setup", template_folder="templates")
    _add_entrance(routes, desk)
    _add_making(routes, desk)

    @routes.get("/style.css")
    def style() -> Page:
        return Response(render_template("setup/style.css"), mimetype="text/css")

    @routes.after_request
    def guard(answer: Response) -> Response:
        answer.headers.update(_HEADERS)
        answer.headers["Content-Security-Policy"] = (
            "default-src 'none'; style-src 'self'; base-uri 'none'; frame-ancestors 'none'; "
            f"form-action 'self' {desk.github_web}"
        )
        return answer

    routes.record(lambda state: tell(state.app, SETUP))
    routes.register_error_handler(SpotError, _refusal)
    routes.register_error_handler(HTTPException, lambda error: _sentence(error.description or error.name, error.code))
    return routes


def _add_entrance(routes: Blueprint, desk: Desk) -> None:
    @routes.get("")
    def begin() -> Page:
        if desk.is_done():
            _session(desk)
            return redirect(url_for("setup.check"), 303)
        return _page("choose.html" if desk.is_inside(_cookie()) else "token.html")

    @routes.post("/token")
    def token() -> Page:
        session = desk.enter(request.form.get("token", "").strip())
        answer = make_response(redirect(url_for("setup.begin"), 303))
        secure = desk.public_url.startswith("https://")
        # Lax: GitHub's redirect must bring it along, and nobody else's form may.
        answer.set_cookie(COOKIE, session, COOKIE_LIMIT_S, path="/setup", secure=secure, httponly=True, samesite="Lax")
        return answer


def _add_making(routes: Blueprint, desk: Desk) -> None:
    @routes.get("/app")
    def app() -> Page:
        session, asked = _session(desk), request.args
        form = desk.form(
            session, asked.get("name", ""), asked.get("organization", ""), is_public=asked.get("public") == "yes"
        )
        return _page("create.html", form=form, manifest=json.dumps(form.manifest))

    @routes.get("/created")
    def created() -> Page:
        session, code = _session(desk), request.args.get("code", "")
        if not CODE.fullmatch(code):
            raise BadInput("code: GitHub has sent none, or something else; begin at /setup again")
        desk.made(session, request.args.get("state", ""), code)
        return redirect(url_for("setup.check"), 303)

    @routes.get("/check")
    def check() -> Page:
        _session(desk)
        return _page("check.html", checked=desk.check()) if desk.is_done() else redirect(url_for("setup.begin"), 303)


def _cookie() -> str | None:
    return request.cookies.get(COOKIE)


def _session(desk: Desk) -> str:
    """Return the session of this browser. Raises `Refused` if it is not inside."""
    session = _cookie()
    if session is None or not desk.is_inside(session):
        raise Refused(
            "nobody is let in here but by the token that `spot-runner setup` prints, and only until there is an App"
        )
    return session


def _refusal(error: SpotError) -> Page:
    match error:
        case BadInput():
            return _sentence(str(error), 400)
        case TryLater():
            return _sentence(str(error), 503)
        case _:
            return _sentence(str(error), 403)


def _sentence(sentence: str, status: int | None) -> Page:
    answer = _page("refused.html", sentence=sentence)
    answer.status_code = status or 500
    return answer


def _page(name: str, **told: object) -> Page:
    return make_response(render_template(f"setup/{name}", **told))
