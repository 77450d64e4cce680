"""What the receiver is measured against: a Flask view that answers 202 and looks at nothing."""

from __future__ import annotations

from flask import Flask, Response


def app() -> Flask:
    """Return the application that does nothing."""
    bare = Flask("bare", static_folder=None)

    @bare.post("/github")
    def github() -> Response:
        return Response(status=202)

    return bare
