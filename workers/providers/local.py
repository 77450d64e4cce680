"""Cloud over the local spot market of docs/protocols.md, in which a host is a network namespace of this machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import timedelta
from typing import Final, TypeVar

import httpx
from pydantic import TypeAdapter, ValidationError

from workers.domain.errors import NoCapacity, Refused, SpotError, Throttled, Unreachable
from workers.domain.host import Host
from workers.domain.market import ANYWHERE, Sources
from workers.domain.names import HostId
from workers.domain.runner import Shape
from workers.domain.user_data import cloud_config
from workers.ports import Instance

# The caller holds a lease of ten seconds; a launch only orders, and the instance's state tells how it goes.
CALL_LIMIT_S: Final = 5.0
CONNECT_LIMIT_S: Final = 1.0

T = TypeVar("T")

_ONE: Final = TypeAdapter(Instance)
_ALL: Final = TypeAdapter(tuple[Instance, ...])


class LocalMarket:
    """ports.Cloud and ports.Interrupter, for the rehearsal and for one machine."""

    def __init__(self, url: str) -> None:
        timeout = httpx.Timeout(CALL_LIMIT_S, connect=CONNECT_LIMIT_S)
        self._client = httpx.Client(base_url=url, timeout=timeout, trust_env=False)

    @property
    def name(self) -> str:
        return "local"

    def launch(
        self,
        host_id: HostId,
        spec: Shape,
        user_data: Mapping[str, str],
        sources: Sources = ANYWHERE,  # noqa: ARG002 - it has one zone and one kind of offer
    ) -> Instance:
        told = cloud_config(user_data)
        answer = self._call("PUT", f"/instances/{host_id}", {"spec": asdict(spec), "user_data": told})
        return _read(_ONE, answer)

    def terminate(self, host_id: HostId) -> None:
        self._call("DELETE", f"/instances/{host_id}")

    def describe(self, host_id: HostId) -> Instance | None:
        answer = self._call("GET", f"/instances/{host_id}")
        return None if answer.status_code == httpx.codes.NOT_FOUND else _read(_ONE, answer)

    def owned(self) -> Iterable[Instance]:
        return _read(_ALL, self._call("GET", "/instances"))

    def take_back(self, host: Host, notice: timedelta) -> None:
        """Keep ports.Interrupter's promise: any notice is given, none too."""
        self._call("POST", f"/instances/{host.id}/notice", {"seconds": notice.total_seconds()})

    def close(self) -> None:
        """Close every connection."""
        self._client.close()

    def _call(self, method: str, path: str, body: Mapping[str, object] | None = None) -> httpx.Response:
        try:
            answer = self._client.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise Unreachable(f"the spot market at {self._client.base_url}: {method} {path}: {error!r}") from error
        if answer.is_success or (answer.status_code == httpx.codes.NOT_FOUND and method != "PUT"):
            return answer
        raise _error(answer)


def _error(answer: httpx.Response) -> SpotError:
    sentence = f"the spot market answered {answer.status_code}: {answer.text[:300]}"
    if answer.status_code == httpx.codes.CONFLICT:
        return NoCapacity(sentence)
    if answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
        return Throttled(sentence)
    return Unreachable(sentence) if answer.is_server_error else Refused(sentence)


def _read(adapter: TypeAdapter[T], answer: httpx.Response) -> T:
    try:
        return adapter.validate_json(answer.content)
    except ValidationError as error:
        raise Refused(f"the spot market answered something else than instances: {error}") from error
