"""Who is calling the simulated API: the App itself, by a JWT that it signed, or one installation of it, by a token."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from http import HTTPStatus

import jwt
from flask import g, request

from workers.rehearsal.github.apps import Apps
from workers.rehearsal.github.rates import Caller
from workers.rehearsal.github.records import ApiError, App, Installation
from workers.rehearsal.github.world import World

# GitHub accepts a JWT that lives for ten minutes at most.
JWT_LIMIT = timedelta(minutes=10)


class Login:
    """Checks the Authorization header of the request at hand."""

    def __init__(self, world: World, apps: Apps) -> None:
        self._world = world
        self._apps = apps

    def require_app(self) -> None:
        """Refuse everybody but an App, and remember which it is."""
        token = credentials("bearer")
        app = self._claimed(token)
        try:
            claims = jwt.decode(
                token, app.public_key, algorithms=["RS256"], options={"require": ["exp", "iat", "iss"]}, leeway=5
            )
        except jwt.InvalidTokenError as error:
            raise ApiError(HTTPStatus.UNAUTHORIZED, f"A JSON web token could not be decoded: {error}") from error
        if claims["exp"] - claims["iat"] > JWT_LIMIT.total_seconds():
            raise ApiError(HTTPStatus.UNAUTHORIZED, "'Expiration time' claim ('exp') is too far in the future")
        g.github_app = app

    def app(self) -> App:
        """Return who `require_app` has let in."""
        app: App = g.github_app
        return app

    def _claimed(self, token: str) -> App:
        """Return the App that this token says it comes from; whether it does, its signature tells."""
        try:
            issuer = jwt.decode(token, options={"verify_signature": False}).get("iss")
        except jwt.InvalidTokenError as error:
            raise ApiError(HTTPStatus.UNAUTHORIZED, f"A JSON web token could not be decoded: {error}") from error
        found = next((app for app in list(self._apps.all.values()) if str(app.id) == str(issuer)), None)
        if found is None:
            raise ApiError(HTTPStatus.UNAUTHORIZED, "'Issuer' claim ('iss') must be the App's id")
        return found

    def caller(self) -> Caller | None:
        """Return whose budget the request at hand is counted in; None if it is nobody's."""
        with suppress(ApiError):
            text = credentials("token", "bearer")
            if text.count(".") == 2:  # noqa: PLR2004 - a JWT has three parts
                return self._claimed(text).id, 0
            installation = self._world.installation_by_token(text)
            return installation.app.id, installation.id
        return None

    def require_installation(self, account: str) -> Installation:
        """Refuse everybody but the installation in this account; others are not told that the account exists."""
        installation = self.require_any()
        repository = f"{account}/{(request.view_args or {}).get('repo')}".lower()
        if installation.account.lower() != account.lower() or repository in installation.left:
            raise ApiError(HTTPStatus.NOT_FOUND, "Not Found")
        return installation

    def require_any(self) -> Installation:
        """Return the installation that asks."""
        return self._world.installation_by_token(credentials("token", "bearer"))


def credentials(*schemes: str) -> str:
    """Return what the Authorization header carries under one of these schemes."""
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() not in schemes or not value:
        raise ApiError(HTTPStatus.UNAUTHORIZED, "Requires authentication")
    return value
