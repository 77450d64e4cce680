"""The broker's paths, under `/_runner`: what a runner in a guest asks and says."""

from __future__ import annotations

from http import HTTPStatus

from flask import Blueprint, Response, jsonify, request

from workers.rehearsal.github.broker import POLL_LIMIT_S, Broker
from workers.rehearsal.github.login import credentials
from workers.rehearsal.github.records import Runner

Answer = Response | tuple[Response, int]


class RunnerApi:
    """The broker over HTTP; the runner's secret stands in the Authorization header."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def blueprint(self) -> Blueprint:
        """Return the routes."""
        routes = Blueprint("runner_api", __name__, url_prefix="/_runner")
        routes.put("/sessions/<session>")(self.open_session)
        routes.get("/sessions/<session>/offer")(self.offer)
        routes.post("/jobs/<int:job_id>/acquire")(self.acquire)
        routes.post("/jobs/<int:job_id>/renew")(self.renew)
        routes.post("/jobs/<int:job_id>/events")(self.append)
        routes.post("/jobs/<int:job_id>/finish")(self.finish)
        return routes

    def _speaker(self) -> Runner:
        return self._broker.runner_by_secret(credentials("bearer"))

    def open_session(self, session: str) -> Answer:
        version = str((request.get_json(silent=True) or {}).get("version", ""))
        return jsonify(self._broker.open_session(self._speaker(), session, version))

    def offer(self, session: str) -> Answer:
        """Wait up to `?wait=` seconds; 204 if there is no job by then."""
        wait_s = float(request.args.get("wait", POLL_LIMIT_S))
        found = self._broker.next_offer(self._speaker(), session, wait_s)
        return Response(status=HTTPStatus.NO_CONTENT) if found is None else jsonify(found)

    def acquire(self, job_id: int) -> Answer:
        return jsonify(self._broker.acquire(self._speaker(), job_id))

    def renew(self, job_id: int) -> Answer:
        return jsonify(self._broker.renew(self._speaker(), job_id))

    def append(self, job_id: int) -> Answer:
        said = request.get_json()
        return jsonify(self._broker.append(self._speaker(), job_id, int(said["first"]), said["events"]))

    def finish(self, job_id: int) -> Answer:
        self._broker.finish(self._speaker(), job_id, request.get_json()["conclusion"])
        return jsonify({})
