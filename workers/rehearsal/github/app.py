"""The simulated GitHub as one Flask application, with its two background threads.

Everything under the public API is checked against the published contract, the request before it is carried out and the
response before it leaves; what breaks it is answered with 500 and kept.
"""

from __future__ import annotations

import threading
from fnmatch import fnmatch
from http import HTTPStatus
from typing import Final

from flask import Flask, Request, Response, g, request
from werkzeug.exceptions import HTTPException

from workers.clock import SystemClock
from workers.ports import Clock
from workers.rehearsal.github.api import AppApi, ManifestApi, RunnersApi, RunsApi
from workers.rehearsal.github.apps import Apps, first_app
from workers.rehearsal.github.broker import Broker
from workers.rehearsal.github.checks import Checks
from workers.rehearsal.github.contract import Broken, Contract, Sampling
from workers.rehearsal.github.deliveries import Sender
from workers.rehearsal.github.faults import Faults, answer_after, answer_before, refusal
from workers.rehearsal.github.groups import RunnerGroups
from workers.rehearsal.github.login import Login
from workers.rehearsal.github.pages import Pages
from workers.rehearsal.github.rates import RateLimits
from workers.rehearsal.github.records import ApiError, Job
from workers.rehearsal.github.rehearsing import Rehearsing
from workers.rehearsal.github.runner_api import RunnerApi
from workers.rehearsal.github.settings import Settings
from workers.rehearsal.github.views import Views
from workers.rehearsal.github.world import World

# Paths that GitHub does not publish, does not have, or that are pages for people.
UNPUBLISHED: Final = ("/_runner/", "/_simulator/", "/settings/", "/organizations/")
# Below an App's own path, which is published, are pages, too.
PAGES: Final = ("/apps/*/installations", "/apps/*/installations/*")
TICK_S: Final = 0.2
BODY_MAX: Final = 4 * 1024 * 1024


class Simulation:
    """One simulated GitHub: its state, its sender, its application."""

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        self._settings = settings
        clock = clock or SystemClock()
        app = first_app(settings.app_id, settings.app_key, settings.webhook_url, settings.webhook_secret)
        self.apps = Apps(app)
        self.world = World(clock, settings.limits, self._announce, app)
        self._checked = Sampling(settings.checked_every)
        self.sender = Sender(clock, self.world.violated, self._checked)
        self._contract = Contract()
        self._faults = Faults()
        self._login = Login(self.world, self.apps)
        self.rates = RateLimits(clock, settings.rates)
        self.flask = self._application()

    def _announce(self, action: str, job: Job) -> None:
        for installation in self.world.told_of(job.run):
            self.sender.announce(action, job, installation, self._settings.url)

    def start(self) -> None:
        """Start the threads; they end with the process."""
        state = self._settings.state
        if state is not None:
            state.mkdir(parents=True, exist_ok=True)
        self.sender.start(state / "deliveries.jsonl" if state else None, self._settings.senders)
        threading.Thread(target=self._tick_forever, name="tick", daemon=True).start()

    def _tick_forever(self) -> None:
        pause = threading.Event()
        while not pause.wait(TICK_S):
            self.world.tick()

    def _application(self) -> Flask:
        settings, flask = self._settings, Flask(__name__)
        flask.config["MAX_CONTENT_LENGTH"] = BODY_MAX
        login = self._login
        views = Views(settings.url, self.world)
        flask.before_request(self._check_request)
        flask.after_request(self._check_response)
        flask.register_error_handler(ApiError, lambda error: refusal(error.status, error.message))
        flask.register_error_handler(HTTPException, lambda error: refusal(error.code or 500, error.description or ""))
        flask.register_blueprint(AppApi(self.world, login, views, self.sender).blueprint())
        flask.register_blueprint(ManifestApi(self.apps, views).blueprint())
        flask.register_blueprint(Pages(self.world, self.apps).blueprint())
        groups = RunnerGroups(self.world, login, views)
        flask.register_blueprint(groups.blueprint())
        flask.register_blueprint(RunnersApi(self.world, login, views, groups).blueprint())
        flask.register_blueprint(RunsApi(self.world, login, views).blueprint())
        flask.register_blueprint(Checks(self.world, login, views).blueprint())
        flask.register_blueprint(RunnerApi(Broker(self.world)).blueprint())
        flask.register_blueprint(Rehearsing(self.world, self.sender, self._faults, self.rates).blueprint())
        return flask

    def _check_request(self) -> Response | None:
        if is_unpublished(request.path):
            return None
        g.caller = self._login.caller()
        if g.caller is not None:
            route, registers = str(request.url_rule), registers_in(request)
            if throttle := self.rates.admit(g.caller, request.method, registers, route):
                return refusal(HTTPStatus.FORBIDDEN, throttle.message, throttle.headers)
        g.fault = self._faults.strike(request)
        if g.fault is not None and (planted := answer_before(g.fault)) is not None:
            return planted
        try:
            if self._checked.wants(f"{request.method} {request.endpoint}"):
                self._contract.check_request(request)
        except Broken as error:
            return self._broken(error)
        return None

    def _check_response(self, response: Response) -> Response:
        if is_unpublished(request.path) or g.get("is_broken"):
            return response
        if g.get("fault") is not None:
            response = answer_after(g.fault, response)
        try:
            if self._checked.wants(f"{request.method} {request.endpoint} {response.status_code}"):
                self._contract.check_response(request, response)
        except Broken as error:
            return self._broken(error)
        return self._stamped(unless_known(response))

    def _stamped(self, response: Response) -> Response:
        """Say in the answer what is left of the hour."""
        if g.get("caller") is not None:
            is_free = response.status_code == HTTPStatus.NOT_MODIFIED
            for name, value in self.rates.headers(g.caller, is_free=is_free).items():
                response.headers.setdefault(name, value)
        return response

    def _broken(self, error: Broken) -> Response:
        """Keep a breach of the contract and answer with it."""
        g.is_broken = True
        where = f"{request.method} {request.path}"
        self.world.violated(where, str(error))
        return refusal(HTTPStatus.INTERNAL_SERVER_ERROR, f"{where} breaks the published contract: {error}")


def is_unpublished(path: str) -> bool:
    """Say whether nothing is promised of this path."""
    return path.startswith(UNPUBLISHED) or any(fnmatch(path, page) for page in PAGES)


def unless_known(response: Response) -> Response:
    """Stamp what was read with an ETag, and answer 304 to whoever shows that he has it already."""
    if request.method == "GET" and response.status_code == HTTPStatus.OK:
        response.add_etag()
        response.make_conditional(request)
    return response


def registers_in(asked: Request) -> str | None:
    """Return the repository or organization into which a request registers a runner."""
    place, found, _ = asked.path.lower().partition("/actions/runners/generate-jitconfig")
    return place if found else None


def create_simulator(settings: Settings) -> Flask:
    """Return the application of a simulated GitHub whose threads run."""
    simulation = Simulation(settings)
    simulation.start()
    return simulation.flask
