"""What the tests of every cloud share."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from wsgiref.types import WSGIApplication

from werkzeug.serving import make_server

from workers.domain.names import HostId
from workers.domain.runner import Shape

SPEC = Shape(vcpus=2, memory_mib=2048, disk_mib=4096)
A, B = HostId("spot-host-a"), HostId("spot-host-b")
TOLD = {"control_url": "https://control", "token": "spot-host-a.t"}
CALL_LIMIT_S = 30.0
# How soon a server notices that it is to end: its own half second would be most of a short test.
POLL_S = 0.05


@contextmanager
def answering(app: WSGIApplication) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(POLL_S,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join(CALL_LIMIT_S)
        server.server_close()
