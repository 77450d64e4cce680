"""The object store as a host reaches it: by URLs that the control plane has signed.

A URL without a host is one of the control plane's own host listener, where our certificate is asked for as always; any
other is the cloud's, where nobody is told who we are and the usual authorities vouch for the server.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Final

import httpx

from workers.caller import Call, Caller, without_query
from workers.domain.errors import BadInput, Refused, Unreachable

NAME: Final = "control"
CONNECT_LIMIT_S: Final = 3.0
# For each piece of an object that is sent or read, not for all of it.
PIECE_LIMIT_S: Final = 10.0


class Transfers:
    """Safe for threads, blocking. Raises `Unreachable` or another `TryLater`, or `Refused`."""

    def __init__(self, control_url: str, directory: Path) -> None:
        """`directory` holds our certificate, our key and `control-ca.pem`."""
        self._control_url = control_url.rstrip("/")
        self._control = Caller(directory, "control-ca.pem")
        self._lock = threading.Lock()
        self._cloud: httpx.Client | None = None

    def put(self, url: str, content: bytes) -> None:
        """Write one object."""
        self._ask("PUT", url, content)

    def get(self, url: str, limit_bytes: int) -> bytes:
        """Read one object. Raises `BadInput` if it is longer than it may be."""
        content = self._ask("GET", url, None).content
        if len(content) > limit_bytes:
            raise BadInput(f"the object at {without_query(url)} is longer than {limit_bytes} bytes")
        return content

    def close(self) -> None:
        """Close every connection."""
        self._control.close()
        if self._cloud is not None:
            self._cloud.close()

    def _ask(self, method: str, url: str, content: bytes | None) -> httpx.Response:
        if url.startswith("/"):
            call = Call(method, self._control_url + url, PIECE_LIMIT_S, CONNECT_LIMIT_S, content)
            return self._control.ask(NAME, call)
        try:
            answer = self._client().request(method, url, content=content)
        except httpx.HTTPError as error:
            raise Unreachable(f"object store: {method} {without_query(url)}: {error!r}") from error
        if answer.is_success:
            return answer
        sentence = f"object store answered {answer.status_code} to {method} {without_query(url)}: {answer.text[:200]}"
        raise Unreachable(sentence) if answer.is_server_error else Refused(sentence)

    def _client(self) -> httpx.Client:
        with self._lock:
            if self._cloud is None:
                limit = httpx.Timeout(PIECE_LIMIT_S, connect=CONNECT_LIMIT_S)
                self._cloud = httpx.Client(trust_env=False, timeout=limit)
            return self._cloud
