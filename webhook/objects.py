"""The object store in a directory, served to hosts: one object for each URL, and the URL must be one that we signed."""

from __future__ import annotations

from typing import Final

from flask import Blueprint, Response, abort, request

from webhook.described import OBJECTS
from webhook.hosts import admitted
from webhook.needs import ServedObjects
from webhook.openapi import tell
from webhook.words import Words
from workers.domain.park import SEALED_LIMIT_BYTES

OBJECT_ROUTES: Final = "objects"


def object_routes(objects: ServedObjects, words: Words) -> Blueprint:
    """Return the routes of docs/protocols.md, "Objects"; only hosts of ours come this far at all."""
    routes = Blueprint(OBJECT_ROUTES, __name__, url_prefix="/v1/objects")

    @routes.before_request
    def refuse() -> None:
        admitted(words)
        name = str((request.view_args or {})["name"])
        objects.admit(request.method, name, request.args.get("expires", ""), request.args.get("signature", ""))
        request.max_content_length = SEALED_LIMIT_BYTES + 1
        if (request.content_length or 0) > SEALED_LIMIT_BYTES:
            abort(413)

    @routes.put("/<path:name>")
    def write(name: str) -> Response:
        content = request.get_data()
        if len(content) > SEALED_LIMIT_BYTES:
            abort(413)
        objects.write(name, content)
        return Response(status=204)

    @routes.get("/<path:name>")
    def read(name: str) -> Response:
        content = objects.read(name)
        if content is None:
            abort(404, "there is no such object")
        return Response(content, mimetype="application/octet-stream")

    routes.record(lambda state: tell(state.app, OBJECTS))
    return routes
