"""The Apps of the simulated GitHub: the one that it was started with, and those that are made of manifests."""

from __future__ import annotations

import itertools
import re
import secrets
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from workers.domain.github_app import EVENTS, PERMISSIONS
from workers.rehearsal.github.contract import published
from workers.rehearsal.github.records import ApiError, App, Json

NAME_MAX: Final = 34
# Global events, which come by themselves and may not be asked for.
GLOBAL: Final = frozenset({"installation", "installation_repositories", "github_app_authorization", "meta"})
_URL: Final = re.compile(r"https?://[^\s]+")


@dataclass(frozen=True)
class Made:
    """An App whose maker has not taken its secrets yet."""

    app: App
    pem: str


class Apps:
    """Every App, by its number."""

    def __init__(self, first: App) -> None:
        self.first = first
        self.all: dict[int, App] = {first.id: first}
        self._codes: dict[str, Made] = {}
        self._ids = itertools.count(first.id + 1)

    def make(self, manifest: Json, owner: str) -> str:
        """Make the App of a manifest and return the code by which its secrets are taken. Raises `ApiError`."""
        check_manifest(manifest)
        if any(app.name == manifest["name"] for app in list(self.all.values())):
            raise ApiError(HTTPStatus.UNPROCESSABLE_ENTITY, "Name is already taken")
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        app = App(
            id=next(self._ids),
            name=manifest["name"],
            owner=owner,
            public_key=public,
            permissions={"metadata": "read", **manifest.get("default_permissions", {})},
            events=tuple(manifest.get("default_events", ())),
            hook_url=manifest["hook_attributes"]["url"],
            hook_secret=secrets.token_hex(20),
            setup_url=manifest.get("setup_url"),
            is_public=bool(manifest.get("public")),
        )
        self.all[app.id] = app
        code = secrets.token_hex(20)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()
        self._codes[code] = Made(app, pem)
        return code

    def take(self, code: str) -> Made:
        """Hand out the secrets of the App of this code, once."""
        made = self._codes.pop(code, None)
        if made is None:
            raise ApiError(HTTPStatus.NOT_FOUND, "Not Found")
        return made

    def by_slug(self, slug: str) -> App:
        """Find an App by its address."""
        found = next((app for app in list(self.all.values()) if app.slug == slug), None)
        if found is None:
            raise ApiError(HTTPStatus.NOT_FOUND, "Not Found")
        return found


def first_app(app_id: int, public_key: str, hook_url: str, hook_secret: str) -> App:
    """Return the App that a simulator is started with: all that ours needs."""
    return App(app_id, "Rehearsal", "octo-org", public_key, dict(PERMISSIONS), EVENTS, hook_url, hook_secret)


def check_manifest(manifest: Json) -> None:
    """Raise `ApiError` for what GitHub's form would show as an error: what it lacks, or what no App may ask for."""
    known = published("description")["components"]["schemas"]["app-permissions"]["properties"]
    wrong = [
        what
        for what, is_wrong in (
            ("name", not 1 <= len(manifest.get("name", "")) <= NAME_MAX),
            ("url", not _URL.fullmatch(manifest.get("url", ""))),
            ("redirect_url", not _URL.fullmatch(manifest.get("redirect_url", ""))),
            ("hook_attributes", not _URL.fullmatch(manifest.get("hook_attributes", {}).get("url", ""))),
            ("default_events", bool(GLOBAL & set(manifest.get("default_events", ())))),
            *(
                (f"default_permissions.{name}", not is_permission(known, name, level))
                for name, level in asked(manifest)
            ),
        )
        if is_wrong
    ]
    if wrong:
        raise ApiError(HTTPStatus.UNPROCESSABLE_ENTITY, f"Invalid GitHub App configuration: {', '.join(wrong)}")


def asked(manifest: Json) -> list[tuple[str, str]]:
    """Return what a manifest asks for."""
    return list(manifest.get("default_permissions", {}).items())


def is_permission(known: Json, name: str, level: str) -> bool:
    """Say whether GitHub's description knows this permission at this level."""
    return name in known and level in known[name]["enum"]
