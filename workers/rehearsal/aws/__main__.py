"""Serves AWS for a rehearsal: `python -m workers.rehearsal.aws --listen 127.0.0.1:8701 --moto http://127.0.0.1:8702`.

Under `/_simulator` the rehearsal itself asks for what AWS has nothing like:

    POST /_simulator/sold-out   {"instance_type", "times"}: so many fleets get InsufficientInstanceCapacity
    GET  /_simulator/calls      {"CreateFleet": 3, …}: how often each call was made
"""

from __future__ import annotations

import argparse
import signal
import threading
from http import HTTPStatus
from typing import Final

from flask import Flask, Response, jsonify, request
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.serving import make_server

from workers.rehearsal.aws.catalogue import ANSWERS
from workers.rehearsal.aws.faults import Faults, Sells

NO_CAPACITY: Final = "InsufficientInstanceCapacity"
WORDS: Final = "There is no Spot capacity available that matches your request."


def rehearsing(faults: Faults) -> Flask:
    """Return what a rehearsal itself asks."""
    flask = Flask(__name__)

    @flask.post("/sold-out")
    def sold_out() -> Response:
        told = request.get_json()
        nothing = Sells(((NO_CAPACITY, told["instance_type"], WORDS),))
        faults.plant("CreateFleet", *[nothing] * told["times"])
        return Response(status=HTTPStatus.NO_CONTENT)

    @flask.get("/calls")
    def calls() -> Response:
        return jsonify(faults.counted)

    return flask


def main() -> None:
    """Serve until a signal comes."""
    parser = argparse.ArgumentParser(prog="python -m workers.rehearsal.aws", description=__doc__)
    parser.add_argument("--listen", required=True, help="address:port")
    parser.add_argument("--moto", required=True, help="URL of moto's server")
    given = parser.parse_args()
    faults = Faults(given.moto, ANSWERS)
    address, _, port = given.listen.rpartition(":")
    app = DispatcherMiddleware(faults, {"/_simulator": rehearsing(faults)})
    server = make_server(address, int(port), app, threaded=True)
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever()
    server.server_close()


if __name__ == "__main__":
    main()
