"""The simulated GitHub as one Flask application, with its two background threads.

Everything under the public API is checked against the published contract, the request before it is carried out and the
response before it leaves; what breaks it is answered with 500 and kept.
"""

from __future__ import annotations

import threading
from http import HTTPStatus
from typing import Final

from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException

from workers.clock import SystemClock
from workers.ports import Clock
from workers.rehearsal.github.api import AppApi, RunnersApi, RunsApi
from workers.rehearsal.github.broker import Broker
from workers.rehearsal.github.contract import Broken, Contract
from workers.rehearsal.github.deliveries import Sender
from workers.rehearsal.github.faults import Faults, answer_after, answer_before, refusal
from workers.rehearsal.github.login import Login
from workers.rehearsal.github.records import ApiError
from workers.rehearsal.github.rehearsing import Rehearsing
from workers.rehearsal.github.runner_api import RunnerApi
from workers.rehearsal.github.settings import Settings
from workers.rehearsal.github.views import Views
from workers.rehearsal.github.world import World

# Paths that GitHub does not publish, or does not have.
UNPUBLISHED: Final = ("/_runner/", "/_simulator/")
TICK_S: Final = 0.2
BODY_MAX: Final = 4 * 1024 * 1024


class Simulation:
    """One simulated GitHub: its state, its sender, its application."""

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        self._settings = settings
        clock = clock or SystemClock()
        self.world = World(clock, settings.limits, lambda action, job: self.sender.announce(action, job, settings.url))
        self.sender = Sender(settings.webhook_url, settings.webhook_secret, settings.app_id, clock, self.world.violated)
        self._contract = Contract()
        self._faults = Faults()
        self.flask = self._application()

    def start(self) -> None:
        """Start the threads; they end with the process."""
        state = self._settings.state
        if state is not None:
            state.mkdir(parents=True, exist_ok=True)
        self.sender.start(state / "deliveries.jsonl" if state else None)
        threading.Thread(target=self._tick_forever, name="tick", daemon=True).start()

    def _tick_forever(self) -> None:
        pause = threading.Event()
        while not pause.wait(TICK_S):
            self.world.tick()

    def _application(self) -> Flask:
        settings, flask = self._settings, Flask(__name__)
        flask.config["MAX_CONTENT_LENGTH"] = BODY_MAX
        login = Login(self.world, settings.app_id, settings.app_key)
        views = Views(settings.url, self.world)
        flask.before_request(self._check_request)
        flask.after_request(self._check_response)
        flask.register_error_handler(ApiError, lambda error: refusal(error.status, error.message))
        flask.register_error_handler(HTTPException, lambda error: refusal(error.code or 500, error.description or ""))
        flask.register_blueprint(AppApi(self.world, login, views, self.sender).blueprint())
        flask.register_blueprint(RunnersApi(self.world, login, views).blueprint())
        flask.register_blueprint(RunsApi(self.world, login, views).blueprint())
        flask.register_blueprint(RunnerApi(Broker(self.world)).blueprint())
        flask.register_blueprint(Rehearsing(self.world, self.sender, self._faults).blueprint())
        return flask

    def _check_request(self) -> Response | None:
        if request.path.startswith(UNPUBLISHED):
            return None
        g.fault = self._faults.strike(request)
        if g.fault is not None and (planted := answer_before(g.fault)) is not None:
            return planted
        try:
            self._contract.check_request(request)
        except Broken as error:
            return self._broken(error)
        return None

    def _check_response(self, response: Response) -> Response:
        if request.path.startswith(UNPUBLISHED) or g.get("is_broken"):
            return response
        if g.get("fault") is not None:
            response = answer_after(g.fault, response)
        try:
            self._contract.check_response(request, response)
        except Broken as error:
            return self._broken(error)
        return response

    def _broken(self, error: Broken) -> Response:
        """Keep a breach of the contract and answer with it."""
        g.is_broken = True
        where = f"{request.method} {request.path}"
        self.world.violated(where, str(error))
        return refusal(HTTPStatus.INTERNAL_SERVER_ERROR, f"{where} breaks the published contract: {error}")


def create_simulator(settings: Settings) -> Flask:
    """Return the application of a simulated GitHub whose threads run."""
    simulation = Simulation(settings)
    simulation.start()
    return simulation.flask
