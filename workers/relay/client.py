"""Relay over HTTPS: what the control plane tells the egress relay."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import httpx
from pydantic import TypeAdapter, ValidationError

from workers.caller import Call, Caller
from workers.domain.errors import Refused
from workers.domain.names import RunnerId
from workers.domain.overlay import Station
from workers.ports import Forwarding

NAME: Final = "relay"
# The relay only writes forwarding entries; whoever waits longer than this leaves a moved guest without its connections.
CONNECT_LIMIT_S: Final = 1.0
CALL_LIMIT_S: Final = 3.0

_ONE: Final = TypeAdapter(Forwarding)
_ALL: Final = TypeAdapter(tuple[Forwarding, ...])
_STATIONS: Final = TypeAdapter(tuple[Station, ...])
_TEXT: Final = TypeAdapter(str)


class RelayClient:
    """ports.Relay with the control plane's certificate, which is read again whenever its file changes."""

    def __init__(self, url: str, certificate_dir: Path) -> None:
        self._url, self._caller = url.rstrip("/"), Caller(certificate_dir, "control-ca.pem")

    def point(self, entry: Forwarding) -> None:
        self._call("PUT", f"/v1/forwarding/{entry.runner_id}", _ONE.dump_json(entry))

    def forget(self, runner_id: RunnerId, epoch: int) -> None:
        self._call("DELETE", f"/v1/forwarding/{runner_id}?epoch={epoch}")

    def replace_all(self, entries: Iterable[Forwarding]) -> None:
        self._call("PUT", "/v1/forwarding", _ALL.dump_json(tuple(entries)))

    def admit(self, stations: Iterable[Station]) -> str:
        return _text(self._call("PUT", "/v1/overlay", _STATIONS.dump_json(tuple(stations))), "its key")

    def certificate_request(self) -> str:
        """Return the request (PEM) for the relay's next certificate."""
        return _text(self._call("GET", "/v1/certificate"), "a request for a certificate")

    def renew(self, certificate: str) -> None:
        """Let the relay show this certificate (PEM) from now on. Raises `BadInput` if it is not its key's."""
        self._call("PUT", "/v1/certificate", _TEXT.dump_json(certificate))

    def close(self) -> None:
        """Close every connection."""
        self._caller.close()

    def _call(self, method: str, path: str, body: bytes | None = None) -> httpx.Response:
        return self._caller.ask(NAME, Call(method, self._url + path, CALL_LIMIT_S, CONNECT_LIMIT_S, body))


def _text(answer: httpx.Response, what: str) -> str:
    try:
        return _TEXT.validate_json(answer.content)
    except ValidationError as error:
        raise Refused(f"the relay answered something else than {what}: {error}") from error
