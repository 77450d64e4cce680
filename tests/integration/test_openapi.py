"""Our own HTTP surface, described by itself and tried with what schemathesis makes of the description."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from itertools import product
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import pytest
import schemathesis

# schemathesis would import this in the middle of a test, where other threads may parse too: Python 3.11 before 3.11.8
# cannot bear that ("AST constructor recursion depth mismatch"), and pytest parses each module of a plug-in of its own.
import schemathesis.specs.openapi.schemas
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, Phase, given, settings
from jsonschema import Draft202012Validator
from schemathesis import GenerationMode
from schemathesis.core.result import Ok

from tests.contract.github.places import app_key, free_port
from tests.contract.store_rows import ManualClock, a_host
from tests.integration.listeners import SECRET, Connection, HeardHints, signed
from webhook.app import create_host_app, create_public_app
from webhook.openapi import FORM, UNTOLD, Told, describe, path_of
from webhook.seats import Seats
from webhook.setup import COOKIE, setup_routes
from webhook.words import Words
from workers.bootstrap.github_app import keep_app, open_vault
from workers.bootstrap.setup import open_desk
from workers.clock import SystemClock
from workers.domain.errors import Bug
from workers.domain.github_app import GitHubApp
from workers.domain.host import HostState
from workers.domain.names import HostId, PackageDigest
from workers.domain.park import ObjectMethod
from workers.door import SetupDoor
from workers.identity import Authority
from workers.objects import DirectoryObjects
from workers.settings import ControlSettings
from workers.store.repository import SqlStore, open_store

# Each operation has its share of what schemathesis calls right and wrong. To make a case takes fifty times as long as
# to answer it, so each is sent in all its variants: more than 10,000 requests in all.
PUBLIC_CASES, PUBLIC_VARIANTS = 450, 16
HOST_CASES, HOST_VARIANTS = 400, 8
SETUP_CASES, SETUP_VARIANTS = 120, 4
DESKS = ("fresh", "done")
ALL = PUBLIC_CASES * PUBLIC_VARIANTS + HOST_CASES * HOST_VARIANTS + len(DESKS) * SETUP_CASES * SETUP_VARIANTS
# Where a share is no whole number some are left out; each test sees to its part.
PART = 0.9
assert ALL * PART >= 10_000
PACKAGE = PackageDigest(f"sha256:{'ab' * 32}")
OBJECT = "/v1/objects/{name}"
HOST = HostId("spot-host-a")
Json = dict[str, Any]
AnyCase = schemathesis.Case[Any]
Variant = tuple[bytes, dict[str, str], bool]
"""A body, header fields, and whether a host of ours is on the connection."""


@pytest.fixture(scope="module", autouse=True)
def nothing_of_other_tests_is_swept_up() -> None:
    """Sweep before: a task that nobody asked is complained of then, which parses, and see above what that may meet."""
    gc.collect()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqlStore]:
    path = tmp_path_factory.mktemp("store") / "store.sqlite"
    opened = open_store(f"sqlite:///{path}", ManualClock())
    opened.hosts.add(a_host(HOST, state=HostState.PREPARING))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def public(store: SqlStore) -> Flask:
    return create_public_app(store, HeardHints(), ManualClock(), [SECRET])


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> DirectoryObjects:
    home = tmp_path_factory.mktemp("objects")
    return DirectoryObjects.open(home / "objects", home / "objects.key", ManualClock())


@pytest.fixture(scope="module")
def hosts(store: SqlStore, objects: DirectoryObjects, tmp_path_factory: pytest.TempPathFactory) -> Flask:
    """A listener with all that a deployment may have."""
    authority = Authority.open(tmp_path_factory.mktemp("ca"))
    seats = Seats(store, ManualClock())
    words = Words(store, authority, HeardHints(), ManualClock(), (PACKAGE,), objects, seats)
    return create_host_app(words, objects)


@dataclass(frozen=True)
class Entrance:
    """The public app with `/setup`, and the session of somebody who was let in; GitHub does not answer."""

    app: Flask
    session: str


@pytest.fixture(scope="module", params=DESKS)
def entrance(request: pytest.FixtureRequest, store: SqlStore, tmp_path_factory: pytest.TempPathFactory) -> Entrance:
    """There is no App yet, or there is one."""
    home = tmp_path_factory.mktemp("home")
    nowhere = f"http://127.0.0.1:{free_port()}"
    settings = ControlSettings(home=home, github_url=nowhere, public_url="http://127.0.0.1:9")
    desk, vault = open_desk(settings), open_vault(settings)
    session = desk.enter(SetupDoor(vault, SystemClock()).hand_out())
    if request.param == "done":
        keep_app(vault, GitHubApp(7, app_key()[0], ("hush",)))
    app = create_public_app(store, HeardHints(), ManualClock(), [SECRET])
    app.register_blueprint(setup_routes(desk))
    return Entrance(app, session)


def described(app: Flask) -> Json:
    told: Json = app.test_client().get("/openapi.json").get_json()
    return told


def routes(app: Flask) -> set[tuple[str, str]]:
    return {
        (path_of(rule), method.lower())
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - UNTOLD
    }


@pytest.mark.parametrize("name", ["public", "hosts"])
def test_exactly_the_routes_that_exist_are_described(request: pytest.FixtureRequest, name: str) -> None:
    assert_described(request.getfixturevalue(name))


def test_so_are_those_that_a_person_walks(entrance: Entrance) -> None:
    assert_described(entrance.app)
    assert "/setup/created" in described(entrance.app)["paths"]


def assert_described(app: Flask) -> None:
    told = {(path, method) for path, verbs in described(app)["paths"].items() for method in verbs}
    assert told == routes(app)
    operations = [operation for verbs in described(app)["paths"].values() for operation in verbs.values()]
    assert all("default" not in operation["responses"] for operation in operations), "of each there is more to say"


def test_what_has_no_route_cannot_be_described() -> None:
    app = Flask("x")
    describe(app, "x", {"gone": Told("Gone.", {})})
    app.testing = True
    with pytest.raises(Bug, match="gone is described and has no route"):
        app.test_client().get("/openapi.json")


def test_a_route_of_which_nothing_is_told_is_described_all_the_same() -> None:
    app = Flask("x")
    app.get("/other/<int:number>")(other)
    describe(app, "x", {})
    operation = described(app)["paths"]["/other/{number}"]["get"]
    assert (operation["summary"], operation["parameters"][0]["name"]) == ("Do another thing.", "number")


def other(number: int) -> str:
    """Do another thing."""
    return str(number)


# ---------------------------------------------------------------- what schemathesis makes of it


class Caller:
    """Sends what was generated and holds the answer against the description."""

    def __init__(self, app: Flask, told: Json, may: Collection[int] = ()) -> None:
        """`may` are the statuses above 499 that may be answered."""
        self._client: FlaskClient = app.test_client(use_cookies=False)
        self._told, self._may = told, may
        self.seen: dict[tuple[str, int], int] = {}

    def send(self, case: AnyCase, body: bytes, headers: dict[str, str], *, is_host: bool) -> None:
        answer = self._client.open(
            case.formatted_path,
            query_string=form_of(case.query),
            method=case.method,
            data=body,
            headers=headers,
            environ_overrides={"gunicorn.socket": Connection(HOST)} if is_host else {},
        )
        status = answer.status_code
        self.seen[case.path, status] = self.seen.get((case.path, status), 0) + 1
        assert status < 500 or status in self._may, answer.get_data(as_text=True)
        # What is no path of ours, or has another method, is told by Flask.
        expected = self._told["paths"][case.path][case.method.lower()]["responses"]
        assert str(status) in expected or status in {404, 405, 308}, f"{status} is not described"
        self._check(expected.get(str(status), {}).get("content", {}), answer.mimetype, answer.get_data())

    def _check(self, content: Json, media_type: str | None, body: bytes) -> None:
        if "application/json" in content:
            assert media_type == "application/json"
            schema = {**content["application/json"]["schema"], "components": self._told["components"]}
            Draft202012Validator(schema).validate(json.loads(body))
            if "error" in (said := json.loads(body)):
                assert len(said["error"]) > 10, "one sentence"


def encoded(case: AnyCase) -> bytes:
    """Return the body as it is sent; where there is none schemathesis says so by a mark of its own."""
    if isinstance(case.body, bytes):
        return case.body
    if case.media_type == FORM:
        return form_of(case.body).encode()
    try:
        return json.dumps(case.body).encode()
    except (TypeError, ValueError):
        return b""


def form_of(asked: object) -> str:
    """Return what was generated as a form, or as what stands behind a question mark."""
    return urlencode(asked, doseq=True, errors="replace") if isinstance(asked, Mapping) else ""


def printable(headers: object) -> dict[str, str]:
    """Return what a server could ever be sent: others are refused by gunicorn before we see them."""
    pairs = {str(name): str(value) for name, value in dict(headers).items()} if isinstance(headers, Mapping) else {}
    return {name: value for name, value in pairs.items() if value.isascii() and value.isprintable()}


def modes(operation: Json) -> list[GenerationMode]:
    """Return what can be sent: any text is a good part of a path, so without more nothing can be wrong."""
    is_free = "requestBody" not in operation and all(one["in"] == "path" for one in operation["parameters"])
    return [GenerationMode.POSITIVE] if is_free else [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]


def tried(
    app: Flask,
    cases: int,
    variants: Callable[[AnyCase], Iterable[Variant]],
    below: str = "",
    may: Collection[int] = (),
) -> Caller:
    told = described(app)
    told["paths"] = {path: verbs for path, verbs in told["paths"].items() if path.startswith(below)}
    caller = Caller(app, told, may)
    operations = [
        found.ok() for found in schemathesis.openapi.from_dict(told).get_all_operations() if isinstance(found, Ok)
    ]
    assert len(operations) == sum(map(len, told["paths"].values())), "each can be tried"
    of = {one.label: modes(told["paths"][one.path][one.method.lower()]) for one in operations}
    share = cases // sum(len(several) for several in of.values() if len(several) > 1)
    for operation in operations:
        for mode in of[operation.label]:

            @settings(
                max_examples=share,
                deadline=None,
                database=None,
                derandomize=True,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def each(case: AnyCase) -> None:
                for body, headers, is_known in variants(case):
                    caller.send(case, body, headers, is_host=is_known)

            each()
    return caller


def to_the_public(case: AnyCase) -> Iterator[Variant]:
    """Yield a request as it was made, as each event that we read, signed and not, whole and cut off."""
    whole, headers = encoded(case), {"Content-Type": "application/json", **printable(case.headers)}
    events = [headers.get("X-GitHub-Event", ""), "workflow_job", "installation", "installation_repositories"]
    for body, event, is_signed in product((whole, whole[: len(whole) // 2]), events, (True, False)):
        more = {"X-GitHub-Event": event}
        if is_signed:
            more["X-Hub-Signature-256"] = signed("ping", body, "guid")[1]["X-Hub-Signature-256"]
        yield body, headers | more, False


def to_hosts(case: AnyCase) -> Iterator[Variant]:
    """Yield a request as it was made, by a host and by nobody, whole and cut off, as JSON and as something else."""
    whole, headers = encoded(case), printable(case.headers)
    kinds = ("application/json", "text/plain")
    for body, kind, is_known in product((whole, whole[: len(whole) // 2]), kinds, (True, False)):
        yield body, headers | {"Content-Type": kind}, is_known


@pytest.mark.timeout(600)  # a thousand requests, on a machine that may have other things to do
def test_nothing_that_is_sent_to_setup_is_answered_500(entrance: Entrance) -> None:
    def of_browsers(case: AnyCase) -> Iterator[Variant]:
        """Yield a request as it was made, by whoever was let in and by nobody, whole and cut off."""
        whole, headers = encoded(case), {"Content-Type": FORM, **printable(case.headers)}
        for body, is_inside in product((whole, whole[: len(whole) // 2]), (True, False)):
            yield body, headers | ({"Cookie": f"{COOKIE}={entrance.session}"} if is_inside else {}), False

    seen = tried(entrance.app, SETUP_CASES, of_browsers, "/setup", {503}).seen
    assert sum(seen.values()) >= SETUP_CASES * SETUP_VARIANTS * PART
    assert {path for path, status in seen if status == 503} <= {"/setup/check", "/setup/created"}, "they ask GitHub"
    assert {status for path, status in seen if path == "/setup/app"} >= {403}
    assert {status for path, status in seen if path == "/setup"} >= {200} or ("/setup", 303) in seen


@pytest.mark.timeout(600)  # five thousand requests, on a machine that may have other things to do
def test_nothing_that_is_sent_to_the_public_listener_is_answered_500(public: Flask, store: SqlStore) -> None:
    seen = tried(public, PUBLIC_CASES, to_the_public).seen
    assert {status for path, status in seen if path == "/github"} >= {202, 400, 401}, "it came as far as the store"
    assert sum(seen.values()) >= PUBLIC_CASES * PUBLIC_VARIANTS * PART


@pytest.mark.timeout(600)  # thousands of requests, on a machine that may have other things to do
def test_nothing_that_is_sent_to_the_host_listener_is_answered_500(hosts: Flask, objects: DirectoryObjects) -> None:
    def signed_too(case: AnyCase) -> Iterator[Variant]:
        """Yield an object's request with a URL of ours, too: else none comes as far as the store."""
        yield from to_hosts(case)
        if case.path == OBJECT:
            made = unquote(str(case.path_parameters["name"]))
            for name in (made, f"parks/{made.encode(errors='replace').hex()}/{len(made)}"):
                url = objects.url(ObjectMethod(case.method.upper()), name, timedelta(minutes=1))
                case.path_parameters["name"] = quote(name)
                case.query = dict(parse_qsl(urlsplit(url).query))
                yield from to_hosts(case)

    seen = tried(hosts, HOST_CASES, signed_too).seen
    assert sum(seen.values()) >= HOST_CASES * HOST_VARIANTS * PART
    assert {status for _, status in seen} >= {200, 400}
    assert {status for path, status in seen if path == OBJECT} >= {204, 400, 403, 404}, "it came as far as the store"
