"""The object store as a host reaches it: by URLs that the control plane has signed.

A URL without a host is one of the control plane's own host listener, where our certificate is asked for as always; any
other is the cloud's, where nobody is told who we are and the usual authorities vouch for the server.
"""

from __future__ import annotations

import re
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
SAID_MAX: Final = 200
_S3_ERROR: Final = re.compile(r"<Code>([^<]{1,100})</Code>\s*<Message>([^<]{0,300})</Message>")


class SignedObjects:
    """Objects behind URLs of a cloud. Safe for threads, blocking. Raises `Unreachable` or `Refused`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._opened: httpx.Client | None = None

    def get(self, url: str, limit_bytes: int) -> bytes:
        """Read one object. Raises `BadInput` if it is longer than it may be."""
        return _at_most(limit_bytes, url, self.ask("GET", url))

    def ask(self, method: str, url: str, content: bytes | None = None) -> httpx.Response:
        """Return a success."""
        try:
            answer = self._client().request(method, url, content=content)
        except httpx.HTTPError as error:
            raise Unreachable(f"object store: {method} {without_query(url)}: {error!r}") from error
        if answer.is_success:
            return answer
        sentence = f"object store answered {answer.status_code} to {method} {without_query(url)}: {_said(answer)}"
        raise Unreachable(sentence) if answer.is_server_error else Refused(sentence)

    def close(self) -> None:
        """Close every connection."""
        if self._opened is not None:
            self._opened.close()

    def _client(self) -> httpx.Client:
        with self._lock:
            if self._opened is None:
                limit = httpx.Timeout(PIECE_LIMIT_S, connect=CONNECT_LIMIT_S)
                self._opened = httpx.Client(trust_env=False, timeout=limit)
            return self._opened


class Transfers:
    """Safe for threads, blocking. Raises `Unreachable` or another `TryLater`, or `Refused`."""

    def __init__(self, control_url: str, directory: Path) -> None:
        """`directory` holds our certificate, our key and `control-ca.pem`."""
        self._control_url = control_url.rstrip("/")
        self._control = Caller(directory, "control-ca.pem")
        self._cloud = SignedObjects()

    def put(self, url: str, content: bytes) -> None:
        """Write one object."""
        self._ask("PUT", url, content)

    def get(self, url: str, limit_bytes: int) -> bytes:
        """Read one object. Raises `BadInput` if it is longer than it may be."""
        return _at_most(limit_bytes, url, self._ask("GET", url, None))

    def close(self) -> None:
        """Close every connection."""
        self._control.close()
        self._cloud.close()

    def _ask(self, method: str, url: str, content: bytes | None) -> httpx.Response:
        if url.startswith("/"):
            call = Call(method, self._control_url + url, PIECE_LIMIT_S, CONNECT_LIMIT_S, content)
            return self._control.ask(NAME, call)
        return self._cloud.ask(method, url, content)


def _at_most(limit_bytes: int, url: str, answer: httpx.Response) -> bytes:
    if len(answer.content) > limit_bytes:
        raise BadInput(f"the object at {without_query(url)} is longer than {limit_bytes} bytes")
    return answer.content


def _said(answer: httpx.Response) -> str:
    """Return what S3 says: its code and message, not the credentials that its answer repeats."""
    found = _S3_ERROR.search(answer.text)
    return f"{found[1]}: {found[2]}" if found else " ".join(answer.text[:SAID_MAX].split())
