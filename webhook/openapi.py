"""`/openapi.json`: an OpenAPI 3.1 description of an app's HTTP surface, made from the routes that the app has.

url_map ─▶ every route, with its methods and the parts of its path    (so nothing is left out or made up)
told    ─▶ what more there is to say of some: header fields, bodies, answers
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Final

from flask import Flask, Response, jsonify
from flask.sansio.app import App
from pydantic import TypeAdapter
from werkzeug.routing import Rule

from workers.domain.errors import Bug

Json = dict[str, Any]

PATH: Final = "/openapi.json"
TOLD: Final = "spot-runner-told"
FORM: Final = "application/x-www-form-urlencoded"
JSON: Final = "application/json"
OCTETS: Final = "application/octet-stream"
REF: Final = "#/components/schemas/{model}"
# What Flask answers by itself everywhere.
UNTOLD: Final = frozenset({"HEAD", "OPTIONS"})
SENTENCE: Final[Json] = {
    "type": "object",
    "properties": {"error": {"type": "string", "description": "The place, the problem and the remedy."}},
    "required": ["error"],
}
ERRORS: Final = {
    400: "What was sent is wrong; the sentence names the place.",
    401: "The signature is missing or wrong.",
    403: "Whoever asks may not.",
    404: "There is no such thing here.",
    405: "This is asked in another way.",
    413: "It is too large.",
    503: "The store does not answer; send it again.",
}


@dataclass(frozen=True)
class Answer:
    """One kind of answer."""

    words: str
    media_type: str | None = None
    """None: it has no body."""
    schema: TypeAdapter[Any] | Json = field(default_factory=dict)


@dataclass(frozen=True)
class Told:
    """What is to be said of one endpoint beside its path and its method."""

    summary: str
    answers: Mapping[int, Answer]
    errors: Sequence[int] = ()
    """Statuses that come with a sentence."""
    fields: Mapping[str, Json] = field(default_factory=dict)
    """Header fields that must be sent."""
    body: Sequence[TypeAdapter[Any]] = ()
    """What may be sent, one of these."""
    asked: Mapping[str, Json] = field(default_factory=dict)
    """What may stand behind the path's question mark."""
    form: Mapping[str, Json] = field(default_factory=dict)
    """The fields of the form that is sent."""
    octets: bool = False
    """Whatever bytes may be sent."""


def describe(app: Flask, title: str, told: Mapping[str, Told]) -> None:
    """Give the app a route that tells of all its routes, those of later blueprints too.

    An endpoint of which nothing is told is described by its route alone.
    """
    described: list[Json] = []

    @app.get(PATH)
    def openapi() -> Response:
        if not described:
            described.append(description(app, title, told))
        return jsonify(described[0])


def tell(app: App, told: Mapping[str, Told]) -> None:
    """Say of the endpoints of a blueprint what there is to say; the app that it becomes part of need not know."""
    app.extensions.setdefault(TOLD, {}).update(told)


def description(app: Flask, title: str, told: Mapping[str, Told]) -> Json:
    """Return the description. Raises `Bug` for an endpoint that is told of and does not exist."""
    told = {**told, **app.extensions.get(TOLD, {})}
    if missing := set(told) - {rule.endpoint for rule in app.url_map.iter_rules()}:
        raise Bug(f"{min(missing)} is described and has no route")
    schemas: Json = {"Sentence": SENTENCE}
    paths: dict[str, Json] = {}
    for rule in sorted(app.url_map.iter_rules(), key=lambda rule: rule.rule):
        for method in sorted((rule.methods or set()) - UNTOLD):
            paths.setdefault(path_of(rule), {})[method.lower()] = _operation(app, rule, told, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version("spot-runner")},
        "paths": paths,
        "components": {"schemas": dict(sorted(schemas.items()))},
    }


def path_of(rule: Rule) -> str:
    """Return a route's path as OpenAPI writes it."""
    return re.sub(r"<(?:[^:<>]+:)?([^<>]+)>", r"{\1}", rule.rule)


def _operation(app: Flask, rule: Rule, told: Mapping[str, Told], schemas: Json) -> Json:
    known = told.get(rule.endpoint)
    parts: list[Json] = [_parameter(name, "path", {"type": "string"}) for name in sorted(rule.arguments)]
    operation: Json = {"operationId": rule.endpoint, "parameters": parts}
    if known is None:
        about = (app.view_functions[rule.endpoint].__doc__ or rule.endpoint).strip().splitlines()[0]
        return operation | {"summary": about, "responses": {"default": {"description": "Whatever comes of it."}}}
    parts += [_parameter(name, "header", schema) for name, schema in known.fields.items()]
    parts += [_parameter(name, "query", schema) | {"required": False} for name, schema in known.asked.items()]
    operation |= {"summary": known.summary, "responses": dict(_responses(known, schemas))}
    if known.body:
        wanted = [_schema(one, schemas) for one in known.body]
        schema = wanted[0] if len(wanted) == 1 else {"anyOf": wanted}
        operation["requestBody"] = {"required": True, "content": {JSON: {"schema": schema}}}
    if known.form:
        schema = {"type": "object", "properties": dict(known.form), "required": list(known.form)}
        operation["requestBody"] = {"required": True, "content": {FORM: {"schema": schema}}}
    if known.octets:
        bytes_: Json = {"schema": {"type": "string", "format": "binary"}}
        operation["requestBody"] = {"required": True, "content": {OCTETS: bytes_}}
    return operation


def _parameter(name: str, place: str, schema: Json) -> Json:
    return {"name": name, "in": place, "required": True, "schema": schema}


def _responses(known: Told, schemas: Json) -> Iterator[tuple[str, Json]]:
    for status, answer in known.answers.items():
        content = {} if answer.media_type is None else {"content": {answer.media_type: _media(answer, schemas)}}
        yield str(status), {"description": answer.words, **content}
    for status in known.errors:
        sentence = {"$ref": REF.format(model="Sentence")}
        yield str(status), {"description": ERRORS[status], "content": {JSON: {"schema": sentence}}}


def _media(answer: Answer, schemas: Json) -> Json:
    return {
        "schema": answer.schema if isinstance(answer.schema, dict) else _schema(answer.schema, schemas, "serialization")
    }


def _schema(adapter: TypeAdapter[Any], schemas: Json, mode: Any = "validation") -> Json:  # noqa: ANN401 - pydantic's own two words
    """Return the schema of a message; what it refers to is put among the components."""
    schema = adapter.json_schema(ref_template=REF, mode=mode)
    for name, part in schema.pop("$defs", {}).items():
        if schemas.setdefault(name, part) != part:
            raise Bug(f"two messages are called {name} and are not the same; give one another name")
    return schema
