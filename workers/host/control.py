"""The control plane as a host calls it: HTTPS, our certificate, the server's name and not its address.

    user data ─▶ fetch the issuer, hold it against its hash ─▶ register ─▶ certificate ─▶ everything else

A call ends within its limit, whatever happens. All of them are harmless when repeated, so a connection that turns out
to be dead is replaced and the call made again at once.
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeVar

import httpx
from cryptography import x509
from pydantic import TypeAdapter, ValidationError

from workers.domain.errors import Refused, SpotError, Throttled, TryLater, Unfit, Unreachable
from workers.domain.messages import (
    Heartbeat,
    HeartbeatAnswer,
    Notice,
    ObjectsAsked,
    ObjectUrls,
    RegistrationAnswer,
    RegistrationRequest,
    RenewalRequest,
    RowView,
    Word,
)
from workers.domain.migration import Said
from workers.domain.names import MigrationId, PackageDigest
from workers.domain.published import hex_of

T = TypeVar("T")

NAME: Final = "control"
"""The name in the control plane's certificate."""
CONNECT_LIMIT_S: Final = 1.0
# A guest may stand still while its host waits for this answer.
CALL_LIMIT_S: Final = 2.0
# Signing a certificate is work, and nothing waits for it.
REGISTER_LIMIT_S: Final = 10.0

_HEARTBEAT: Final = TypeAdapter(Heartbeat)
_WANTED: Final = TypeAdapter(HeartbeatAnswer)
_NOTICE: Final = TypeAdapter(Notice)
_ROW: Final = TypeAdapter(RowView)
_WORD: Final = TypeAdapter(Word)
_ASKED: Final = TypeAdapter(ObjectsAsked)
_URLS: Final = TypeAdapter(ObjectUrls)
_REQUEST: Final = TypeAdapter(RegistrationRequest)
_RENEWAL: Final = TypeAdapter(RenewalRequest)
_ANSWER: Final = TypeAdapter(RegistrationAnswer)
_ERROR: Final = TypeAdapter(dict[str, str])


class ControlClient:
    """Every call raises `Unreachable` or another `TryLater`, or `Refused` with the control plane's own sentence."""

    def __init__(self, url: str, directory: Path) -> None:
        """`directory` holds `certificate.pem`, `key.pem` and `control-ca.pem`, if not now then after registration."""
        self._url = url.rstrip("/")
        self._directory = directory
        self._client: httpx.AsyncClient | None = None
        self._stamp = 0

    async def register(self, request: RegistrationRequest, control_ca_sha256: str) -> RegistrationAnswer:
        """Exchange the one-time token for a certificate; trusts nothing but the issuer with this hash."""
        issuer = await self._fetch_issuer(control_ca_sha256)
        async with _client(ssl.create_default_context(cadata=issuer)) as client:
            answer = await self._exchange(client, "POST", "/v1/register", REGISTER_LIMIT_S, _REQUEST.dump_json(request))
        return _understood(_ANSWER, answer)

    async def renew(self, request: RenewalRequest) -> RegistrationAnswer:
        """Exchange the present certificate for the next one."""
        body = _RENEWAL.dump_json(request)
        answer = await self._exchange(self._current(), "POST", "/v1/renew", REGISTER_LIMIT_S, body)
        return _understood(_ANSWER, answer)

    async def heartbeat(self, heartbeat: Heartbeat) -> HeartbeatAnswer:
        """Say that we live and how."""
        return _understood(_WANTED, await self._call("POST", "/v1/heartbeat", _HEARTBEAT.dump_json(heartbeat)))

    async def notice(self, notice: Notice) -> None:
        """Say that the machine is taken away."""
        await self._call("POST", "/v1/notice", _NOTICE.dump_json(notice))

    async def row(self, migration_id: MigrationId) -> RowView:
        """Read a migration's row, which also counts as having reached it."""
        return _understood(_ROW, await self._call("GET", f"/v1/migrations/{migration_id}"))

    async def move_certificate(self, migration_id: MigrationId, request: RenewalRequest) -> RegistrationAnswer:
        """Ask for the certificate of our part in a migration."""
        body = _RENEWAL.dump_json(request)
        return _understood(_ANSWER, await self._call("POST", f"/v1/migrations/{migration_id}/certificate", body))

    async def say(self, migration_id: MigrationId, said: Said, word: Word) -> RowView:
        """State a fact about our side of a migration and read the row as it then stands."""
        body = _WORD.dump_json(word)
        return _understood(_ROW, await self._call("POST", f"/v1/migrations/{migration_id}/{said.value}", body))

    async def object_urls(self, migration_id: MigrationId, names: tuple[str, ...]) -> Mapping[str, str]:
        """Ask where these objects of the migration's park are reached."""
        body = _ASKED.dump_json(ObjectsAsked(names))
        answer = await self._call("POST", f"/v1/migrations/{migration_id}/objects", body)
        return _understood(_URLS, answer).urls

    async def package_urls(self, digest: PackageDigest, names: tuple[str, ...]) -> Mapping[str, str]:
        """Ask where these objects of a published package are read."""
        body = _ASKED.dump_json(ObjectsAsked(names))
        answer = await self._call("POST", f"/v1/packages/{hex_of(digest)}/objects", body)
        return _understood(_URLS, answer).urls

    async def close(self) -> None:
        """Close every connection."""
        if self._client is not None:
            await self._client.aclose()

    async def _call(self, method: str, path: str, body: bytes | None = None) -> httpx.Response:
        return await self._exchange(self._current(), method, path, CALL_LIMIT_S, body)

    async def _exchange(
        self, client: httpx.AsyncClient, method: str, path: str, limit_s: float, body: bytes | None
    ) -> httpx.Response:
        try:
            async with asyncio.timeout(limit_s):
                answer = await self._send(client, method, path, body)
        except (httpx.HTTPError, OSError) as error:  # a refusal after the handshake comes as a bare SSLError
            if (ended_at := self._ended_at()) is not None:
                raise Unreachable(
                    f"this host's certificate ran out at {ended_at:%Y-%m-%d %H:%M} UTC while it was cut off, so nobody "
                    "knows it any more: its jobs run on, then it ends itself, and the control plane launches another"
                ) from error
            raise Unreachable(f"control plane at {self._url}: {method} {path}: {error!r}") from error
        if answer.is_success:
            return answer
        raise _error(f"control plane at {self._url} answered {answer.status_code} to {method} {path}", answer)

    def _ended_at(self) -> datetime | None:
        """Return when our certificate ran out, None if it did not or there is none yet."""
        try:
            certificate = x509.load_pem_x509_certificate((self._directory / "certificate.pem").read_bytes())
        except (OSError, ValueError):
            return None
        ended_at = certificate.not_valid_after_utc
        return ended_at if ended_at < datetime.now(UTC) else None

    async def _send(self, client: httpx.AsyncClient, method: str, path: str, body: bytes | None) -> httpx.Response:
        request = client.build_request(
            method,
            self._url + path,
            content=body,
            headers={"Content-Type": "application/json"},
            extensions={"sni_hostname": NAME},
        )
        try:
            return await client.send(request)
        except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError):
            # A kept connection that the other side has just closed; a fresh one tells whether it lives.
            return await client.send(request)

    async def _fetch_issuer(self, sha256: str) -> str:
        # Nothing can be verified yet; the hash from the user data decides.
        async with _client(ssl._create_unverified_context()) as client:  # noqa: S323, SLF001  the documented name for it
            answer = await self._exchange(client, "GET", "/v1/ca", CALL_LIMIT_S, None)
        if hashlib.sha256(answer.content).hexdigest() != sha256:
            raise Refused(f"whoever answers at {self._url} is not our control plane: its issuer has another hash")
        return answer.text

    def _current(self) -> httpx.AsyncClient:
        """Return a client with the certificate that lies in the directory now; renewal only replaces files."""
        certificate = self._directory / "certificate.pem"
        try:
            stamp = certificate.stat().st_mtime_ns
            if self._client is None or stamp != self._stamp:
                context = ssl.create_default_context(cafile=self._directory / "control-ca.pem")
                context.load_cert_chain(certificate, self._directory / "key.pem")
                self._client, self._stamp = _client(context), stamp
        except (OSError, ssl.SSLError) as error:
            raise Unfit(
                f"{self._directory} holds no usable certificate: {error}; remove it to register anew"
            ) from error
        return self._client


def _client(context: ssl.SSLContext) -> httpx.AsyncClient:
    limit = httpx.Timeout(REGISTER_LIMIT_S, connect=CONNECT_LIMIT_S)
    return httpx.AsyncClient(verify=context, trust_env=False, timeout=limit, follow_redirects=False)


def _error(what: str, answer: httpx.Response) -> SpotError:
    sentence = f"{what}: {_reason(answer)}"
    if answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
        return Throttled(sentence)
    if answer.status_code == httpx.codes.CONFLICT:
        return TryLater(sentence)
    return Unreachable(sentence) if answer.is_server_error or answer.is_redirect else Refused(sentence)


def _reason(answer: httpx.Response) -> str:
    """Return the control plane's own sentence, or what came instead of one."""
    try:
        return _ERROR.validate_json(answer.content)["error"][:300]
    except (ValidationError, KeyError):
        return repr(answer.text[:100])


def _understood(adapter: TypeAdapter[T], answer: httpx.Response) -> T:
    try:
        return adapter.validate_json(answer.content)
    except ValidationError as error:
        raise Unreachable(f"{answer.url} did not answer in our words: {answer.text[:100]!r}") from error
