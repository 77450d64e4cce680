"""What `/openapi.json` says of our endpoints beside their routes."""

from __future__ import annotations

from typing import Any, Final

from pydantic import TypeAdapter

from webhook import deliveries, hosts, installations
from webhook.openapi import JSON, OCTETS, Answer, Told

_STORE: Final[dict[str, Any]] = {"type": "object", "properties": {"store": {"const": "ok"}}, "required": ["store"]}
_OPENAPI: Final = Told("This description.", {200: Answer("OpenAPI 3.1.", JSON, {"type": "object"})})
_COMMON: Final = (400, 403, 404, 413, 503)

PUBLIC: Final = {
    "github": Told(
        "Take one of GitHub's webhook deliveries.",
        {202: Answer("It is written down for good.")},
        errors=(400, 401, 413, 503),
        fields={
            "X-GitHub-Delivery": {"type": "string", "pattern": f"^{deliveries.GUID.pattern}$"},
            "X-GitHub-Event": {
                "type": "string",
                "anyOf": [
                    {"enum": ["workflow_job", *sorted(installations.EVENTS), "ping"]},
                    {"pattern": f"^{deliveries.EVENT.pattern}$"},
                ],
            },
            "X-Hub-Signature-256": {"type": "string", "pattern": "^sha256=[0-9a-f]{64}$"},
        },
        body=(TypeAdapter(deliveries.WorkflowJob), TypeAdapter(installations.Event), TypeAdapter(dict[str, Any])),
    ),
    "healthz": Told("Say whether a transaction gets through.", {200: Answer("It does.", JSON, _STORE)}, errors=(503,)),
    "openapi": _OPENAPI,
}

_PAGE: Final = "text/html"
_TEXT: Final[dict[str, Any]] = {"type": "string"}
_SHUT: Final = {403: Answer("Nobody is let in but by the token, and what was begun must be gone on with.", _PAGE)}
_WRONG: Final = {400: Answer("What was typed, or what came back from GitHub, is wrong; the page says where.", _PAGE)}
_AWAY: Final = {503: Answer("GitHub does not answer now.", _PAGE)}
_ON: Final = {303: Answer("What comes next is there.", _PAGE)}

SETUP: Final = {
    "setup.begin": Told("Show where whoever sets this up goes on.", {200: Answer("A form.", _PAGE), **_ON, **_SHUT}),
    "setup.token": Told("Let a browser in.", {**_ON, **_SHUT}, form={"token": _TEXT}),
    "setup.app": Told(
        "Show what is to be posted to GitHub.",
        {200: Answer("A form.", _PAGE), **_WRONG, **_SHUT},
        asked={"name": _TEXT, "organization": _TEXT, "public": {"enum": ["yes"]}},
    ),
    "setup.created": Told(
        "Take the App that GitHub has made.",
        {**_ON, **_WRONG, **_SHUT, **_AWAY},
        asked={"code": _TEXT, "state": _TEXT},
    ),
    "setup.check": Told("Show what the App lacks.", {200: Answer("A page.", _PAGE), **_ON, **_SHUT, **_AWAY}),
    "setup.style": Told("How the pages look.", {200: Answer("CSS.", "text/css", _TEXT)}),
}

HOSTS: Final = {
    "openapi": _OPENAPI,
    "hosts.ca": Told(
        "Show the certificate of the issuer `control`.",
        {200: Answer("PEM.", "application/x-pem-file", {"type": "string"})},
    ),
    "hosts.register": Told(
        "Turn a one-time token into a host's certificate.",
        {200: Answer("The certificate.", JSON, hosts.REGISTERED)},
        errors=_COMMON,
        body=(hosts.REGISTER,),
    ),
    "hosts.renew": Told(
        "Give a host its next certificate.",
        {200: Answer("The certificate.", JSON, hosts.REGISTERED)},
        errors=_COMMON,
        body=(hosts.RENEW,),
    ),
    "hosts.heartbeat": Told(
        "Hear that a host lives.",
        {200: Answer("What it should know.", JSON, hosts.HEARD)},
        _COMMON,
        body=(hosts.HEARTBEAT,),
    ),
    "hosts.notice": Told(
        "Hear that the cloud takes a host back.", {204: Answer("It is written down.")}, _COMMON, body=(hosts.NOTICE,)
    ),
    "hosts.look": Told("Show a migration's row.", {200: Answer("The row.", JSON, hosts.ROW)}, _COMMON),
    "hosts.say": Told(
        "Let a migration's row judge a host's word.",
        {200: Answer("The row as it stands.", JSON, hosts.ROW)},
        _COMMON,
        body=(hosts.WORD,),
    ),
    "hosts.objects": Told(
        "Say where the objects of a park are.",
        {200: Answer("One URL for each.", JSON, hosts.URLS)},
        _COMMON,
        body=(hosts.ASKED,),
    ),
    "hosts.package_objects": Told(
        "Say where the objects of a published package are.",
        {200: Answer("One URL for each.", JSON, hosts.URLS)},
        _COMMON,
        body=(hosts.ASKED,),
    ),
    "hosts.certificate": Told(
        "Sign the key of one host's part in one migration.",
        {200: Answer("The certificate.", JSON, hosts.REGISTERED)},
        _COMMON,
        body=(hosts.RENEW,),
    ),
}

_SIGNED: Final[dict[str, dict[str, Any]]] = {
    "expires": {"type": "string", "pattern": "^[0-9]+$"},
    "signature": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
}

OBJECTS: Final = {
    "objects.read": Told(
        "Read one object of the store, by a URL that was given for it.",
        {200: Answer("The object.", OCTETS)},
        _COMMON,
        asked=_SIGNED,
    ),
    "objects.write": Told(
        "Put one object into the store, by a URL that was given for it.",
        {204: Answer("It is in its place, as a whole.")},
        _COMMON,
        asked=_SIGNED,
        octets=True,
    ),
}
