"""The App's key, the tokens of its installations, and a client of its own for every thread."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from github import Auth, Github
from github.Requester import Requester

from workers.domain.errors import BadInput

TIMEOUT_S: Final = 10
# A token that ends while it is on its way is refused.
TOKEN_RESERVE: Final = timedelta(minutes=2)
# What GitHub hands out, and what a signature of RS256 needs (RFC 7518).
KEY_BITS_MIN: Final = 2048


@dataclass(frozen=True)
class Token:
    """An installation's token; it lives for an hour."""

    text: str = field(repr=False)
    ends_at: datetime


class Login:
    """Clients of GitHub's API for one App and its installations."""

    def __init__(self, url: str, app_id: int, private_key_pem: str) -> None:
        """`url` is the API's root, without a slash at its end. Raises `BadInput` for a key that cannot sign."""
        key = require_key(private_key_pem)
        self.app_id = app_id
        # Read once: to read a key, which is proved to be one each time, takes many times as long as to sign with it.
        self._app = Auth.AppAuth(app_id, lambda: key)  # type: ignore[arg-type,return-value]  # PyJWT takes one, too
        self._options: dict[str, Any] = {
            "base_url": url,
            "seconds_between_requests": 0,
            "seconds_between_writes": 0,
            "retry": None,
            "timeout": TIMEOUT_S,
            "per_page": 100,
            "user_agent": "spot-runner",
            "lazy": True,
        }
        self._mine = threading.local()
        self._tokens: dict[int, Token] = {}
        self._locks: defaultdict[int, threading.Lock] = defaultdict(threading.Lock)

    def as_app(self) -> Requester:
        """Return this thread's client of the App itself."""
        return self._client(0, "", lambda: self._app)

    def as_installation(self, installation_id: int, fetch: Callable[[], Token]) -> Requester:
        """Return this thread's client of an installation; all threads share one token, and one of them fetches it."""
        with self._locks[installation_id]:
            token = self._tokens.get(installation_id)
            if token is None or token.ends_at - TOKEN_RESERVE < datetime.now(UTC):
                token = self._tokens[installation_id] = fetch()
        return self._client(installation_id, token.text, lambda: Auth.Token(token.text))

    def forget(self, installation_id: int) -> None:
        """Log in anew next time, unless another thread has: GitHub does not know the token that this one used last."""
        used, _ = self._clients[installation_id]
        with self._locks[installation_id]:
            token = self._tokens.get(installation_id)
            if token is not None and token.text == used:
                del self._tokens[installation_id]

    @property
    def _clients(self) -> dict[int, tuple[str, Requester]]:
        """This thread's, with the token of each."""
        clients: dict[int, tuple[str, Requester]] = self._mine.__dict__.setdefault("clients", {})
        return clients

    def _client(self, installation_id: int, token: str, auth: Callable[[], Auth.Auth]) -> Requester:
        clients = self._clients
        if installation_id not in clients or clients[installation_id][0] != token:
            clients[installation_id] = token, Github(auth=auth(), **self._options).requester
        return clients[installation_id][1]


def require_key(pem: str, place: str = "what was given") -> RSAPrivateKey:
    """Return an App's key. Raises `BadInput`, which tells no byte of it, before anything is asked with what is none."""
    key = _read_key(pem)
    if key is None:
        because = "it cannot be read as a PEM private key without a password"
    elif not isinstance(key, RSAPrivateKey):
        because = "it is not an RSA key"
    elif key.key_size < KEY_BITS_MIN:
        because = f"it has {key.key_size} bits, not {KEY_BITS_MIN}"
    else:
        return key
    raise BadInput(f"{place}: the GitHub App's private key is of no use: {because}; generate one in the App's settings")


def _read_key(pem: str) -> PrivateKeyTypes | None:
    """Return the key; what is wrong with it is no cause of ours, for it tells of the key's bytes."""
    with suppress(ValueError, TypeError, UnsupportedAlgorithm):
        return load_pem_private_key(pem.encode(), password=None)
    return None
