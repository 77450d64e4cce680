"""One kept-alive connection to the broker, which asks again until it is answered or has no time left.

Every call of the broker's may be repeated, so a connection that was cut in the middle costs nothing but time.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
import urllib.parse
from typing import Any, Final

from rehearsal_runner.configuration import Configuration

# Longer than any pause that a move of the machine makes; shorter than a job's lock.
ANSWER_LIMIT_S: Final = 15.0
# actions/runner tries five times with 5 to 15 s between; nobody here gives up sooner.
PATIENCE_S: Final = 75.0
DELAYS_S: Final = (0.1, 0.3, 1.0, 2.0, 5.0)
SERVER_ERROR: Final = 500

Json = dict[str, Any]


class Refused(Exception):
    """The broker answered that this cannot be; asking again is of no use."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status} {text}")
        self.status = status


class Unanswered(Exception):
    """The broker did not answer for as long as there was any point in asking."""


class Stopped(Exception):
    """Whoever was waiting for the answer does not want it any more."""


class Broker:
    """Calls the broker; each thread has one of its own."""

    def __init__(self, configuration: Configuration, stopping: threading.Event) -> None:
        """`stopping` ends every wait between two tries."""
        self._url = urllib.parse.urlsplit(configuration.server_url)
        self._headers = {"Authorization": f"Bearer {configuration.secret}", "Content-Type": "application/json"}
        self._stopping = stopping
        self._connection: http.client.HTTPConnection | None = None

    def call(
        self,
        verb: str,
        path: str,
        body: Json | None = None,
        *,
        patience_s: float = PATIENCE_S,
        answer_limit_s: float = ANSWER_LIMIT_S,
    ) -> Json | None:
        """Return the answer, None if it was an empty one. Raises `Refused`, `Unanswered` or `Stopped`."""
        end = time.monotonic() + patience_s
        tries = 0
        while True:
            try:
                return self._try(verb, path, body, answer_limit_s)
            except (OSError, http.client.HTTPException) as error:
                self.close()
                delay = DELAYS_S[min(tries, len(DELAYS_S) - 1)]
                if time.monotonic() + delay > end:
                    raise Unanswered(f"{verb} {path}: {error!r}") from error
            if self._stopping.wait(delay):
                raise Stopped
            tries += 1

    def _try(self, verb: str, path: str, body: Json | None, limit_s: float) -> Json | None:
        connection = self._open(limit_s)
        text = None if body is None else json.dumps(body)
        connection.request(verb, self._url.path + path, body=text, headers=self._headers)
        answer = connection.getresponse()
        content = answer.read()
        if answer.status >= SERVER_ERROR:
            raise http.client.HTTPException(f"status {answer.status}")
        if answer.status not in {http.client.OK, http.client.NO_CONTENT}:
            raise Refused(answer.status, content[:200].decode(errors="replace"))
        return json.loads(content) if content else None

    def _open(self, limit_s: float) -> http.client.HTTPConnection:
        """Return the open connection with this time limit."""
        if self._connection is None:
            kind = http.client.HTTPSConnection if self._url.scheme == "https" else http.client.HTTPConnection
            self._connection = kind(self._url.hostname or "", self._url.port)
        self._connection.timeout = limit_s
        if self._connection.sock is not None:
            self._connection.sock.settimeout(limit_s)
        return self._connection

    def close(self) -> None:
        """Drop the connection; the next call opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
