"""Who is calling the simulated API: the App itself, by a JWT that it signed, or one installation of it, by a token."""

from __future__ import annotations

from datetime import timedelta
from http import HTTPStatus

import jwt
from flask import request

from workers.rehearsal.github.records import ApiError, Installation
from workers.rehearsal.github.world import World

# GitHub accepts a JWT that lives for ten minutes at most.
JWT_LIMIT = timedelta(minutes=10)


class Login:
    """Checks the Authorization header of the request at hand."""

    def __init__(self, world: World, app_id: int, app_key: str) -> None:
        self._world = world
        self._app_id = app_id
        self._app_key = app_key

    def require_app(self) -> None:
        """Refuse everybody but the App."""
        token = credentials("bearer")
        try:
            claims = jwt.decode(
                token, self._app_key, algorithms=["RS256"], options={"require": ["exp", "iat", "iss"]}, leeway=5
            )
        except jwt.InvalidTokenError as error:
            raise ApiError(HTTPStatus.UNAUTHORIZED, f"A JSON web token could not be decoded: {error}") from error
        if claims["exp"] - claims["iat"] > JWT_LIMIT.total_seconds():
            raise ApiError(HTTPStatus.UNAUTHORIZED, "'Expiration time' claim ('exp') is too far in the future")
        if str(claims["iss"]) != str(self._app_id):
            raise ApiError(HTTPStatus.UNAUTHORIZED, "'Issuer' claim ('iss') must be the App's id")

    def require_installation(self, account: str) -> Installation:
        """Refuse everybody but the installation in this account; others are not told that the account exists."""
        installation = self._world.installation_by_token(credentials("token", "bearer"))
        if installation.account.lower() != account.lower():
            raise ApiError(HTTPStatus.NOT_FOUND, "Not Found")
        return installation


def credentials(*schemes: str) -> str:
    """Return what the Authorization header carries under one of these schemes."""
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() not in schemes or not value:
        raise ApiError(HTTPStatus.UNAUTHORIZED, "Requires authentication")
    return value
