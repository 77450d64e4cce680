"""The published contract, and whether a request, a response or a delivery keeps it."""

from __future__ import annotations

import json
import threading
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Final

from flask import Request, Response
from jsonschema import Draft4Validator, Draft202012Validator
from jsonschema.exceptions import ValidationError
from openapi_core import OpenAPI
from openapi_core.contrib.werkzeug import WerkzeugOpenAPIRequest, WerkzeugOpenAPIResponse
from openapi_core.exceptions import OpenAPIError
from openapi_core.templating.responses.exceptions import ResponseNotFound

from workers.rehearsal.github.records import Json

PUBLISHED: Final = Path(__file__).parent / "published"
# GitHub describes these for its whole API in prose, and only here and there for an operation.
ERRORS_EVERYWHERE: Final = frozenset({401, 403, 404, 422, 429, 500, 502, 503, 504})


class Broken(Exception):
    """What was said is not what the contract allows; the text says where."""


@cache
def published(name: str) -> Json:
    """Read one of the files that `cut` made."""
    document: Json = json.loads((PUBLISHED / f"{name}.json").read_text(encoding="utf-8"))
    return document


class Sampling:
    """Which of many things of one kind are held against the contract: the first, and then one in every so many.

    A check costs more than the call that it is about, so a rehearsal with a hundred thousand calls checks a part.
    """

    def __init__(self, every: int = 1) -> None:
        self._every = every
        self._lock = threading.Lock()
        self._seen: Counter[str] = Counter()

    def wants(self, kind: str) -> bool:
        """Say whether this one is checked."""
        with self._lock:
            number = self._seen[kind]
            self._seen[kind] += 1
        return number % self._every == 0


class Contract:
    """GitHub's REST description, cut to what we use."""

    def __init__(self) -> None:
        self._description = published("description")
        self._api = OpenAPI.from_dict(self._description)
        self._error = Draft4Validator(self._description["components"]["schemas"]["basic-error"])

    def check_request(self, request: Request) -> None:
        """Raise `Broken` unless the request is one that GitHub describes."""
        try:
            self._api.validate_request(WerkzeugOpenAPIRequest(request))
        except OpenAPIError as error:
            raise Broken(f"request: {told(error)}") from error

    def check_response(self, request: Request, response: Response) -> None:
        """Raise `Broken` unless the response is one that GitHub describes for this request."""
        try:
            self._api.validate_response(WerkzeugOpenAPIRequest(request), WerkzeugOpenAPIResponse(response))
        except ResponseNotFound as error:
            self._check_error(response, error)
        except OpenAPIError as error:
            raise Broken(f"response {response.status_code}: {told(error)}") from error

    def _check_error(self, response: Response, cause: ResponseNotFound) -> None:
        if response.status_code not in ERRORS_EVERYWHERE:
            raise Broken(f"response {response.status_code}: {told(cause)}") from cause
        if not self._error.is_valid(response.get_json()):
            raise Broken(f"response {response.status_code}: the body is not a basic error") from cause


def told(error: BaseException) -> str:
    """Say in words what openapi-core found; it keeps the reason in the causes."""
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    # The body stands in the text of the outer errors, so the places inside it are told instead, if they are known.
    details = [text_of(one) for cause in causes for one in getattr(cause, "schema_errors", ())]
    return "; ".join(dict.fromkeys(details or [str(cause) for cause in causes]))


def text_of(error: ValidationError) -> str:
    """Return a schema error's message with the place it is about."""
    return f"{'/'.join(map(str, error.absolute_path)) or 'body'}: {error.message}"


def check_delivery(event: str, payload: Json) -> None:
    """Raise `Broken` unless GitHub's webhook schema allows this payload."""
    action = payload.get("action")
    name = event.replace("_", "-") + (f"-{str(action).replace('_', '-')}" if action else "")
    validator = validator_of(name)
    errors = [text_of(error) for error in validator.iter_errors(payload)]
    if errors:
        raise Broken(f"delivery {name}: " + "; ".join(errors))


@cache
def validator_of(name: str) -> Draft202012Validator:
    """Return the validator of one webhook, e.g. `workflow-job-queued`."""
    document = published("webhooks")
    if name not in document["webhooks"]:
        raise Broken(f"delivery {name}: not among the published webhooks that we use")
    body = document["webhooks"][name]["post"]["requestBody"]["content"]["application/json"]["schema"]
    return Draft202012Validator({**body, "components": document["components"]})
