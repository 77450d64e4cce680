"""The object store: where parked guests lie. A directory by default, S3 in the cloud; both keep one contract.

    control plane ──signs──▶ URL: one object, one method, some minutes ──▶ host ──PUT or GET──▶ store

Hosts hold no credentials. The directory is served to them by the control plane's host listener, which knows its own
signature again; S3 knows its own.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from workers.domain.errors import BadInput, Refused, TryLater, Unreachable
from workers.domain.park import ObjectMethod
from workers.ports import Clock

SERVED_AT: Final = "/v1/objects/"
SECRET_BYTES: Final = 32
# S3 deletes so many in one call.
DELETED_AT_ONCE: Final = 1000
# A store that hangs must not hold up the evacuation of other guests.
CONNECT_LIMIT_S: Final = 3
READ_LIMIT_S: Final = 5
# Else URLs name S3's global endpoint, which sends callers of a young bucket of another region elsewhere: a redirection
# for which the signature is not good.
REGIONAL: Final = {"addressing_style": "virtual", "us_east_1_regional_endpoint": "regional"}
_PLACE: Final = re.compile(r"[a-z0-9][a-z0-9-]*(?:/[a-z0-9][a-z0-9-]*)+")


class DirectoryObjects:
    """ports.ObjectStore in a directory of this machine, and what the host listener serves of it."""

    def __init__(self, root: Path, secret: bytes, clock: Clock) -> None:
        self._root, self._secret, self._clock = root, secret, clock

    @classmethod
    def open(cls, root: Path, secret_file: Path, clock: Clock) -> DirectoryObjects:
        """Open the store in this directory; every process of the control plane signs with the secret in this file."""
        return cls(root, _shared_secret(secret_file), clock)

    def url(self, method: ObjectMethod, name: str, limit: timedelta) -> str:
        """Return where this object may be reached by this method for so long."""
        expires = str(int((self._clock.now() + limit).timestamp()))
        signature = self._signature(method, name, expires)
        return f"{SERVED_AT}{quote(name)}?{urlencode({'expires': expires, 'signature': signature})}"

    def read(self, name: str) -> bytes | None:
        """Return one object, None if there is none."""
        try:
            return self._place(name).read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    def listed(self, prefix: str) -> Mapping[str, int]:
        """Return the name and the size in bytes of every object whose name begins so."""
        found = (path for path in self._root.rglob("*") if path.is_file() and not path.name.startswith("."))
        named = ((str(path.relative_to(self._root)), path) for path in found)
        return {name: path.stat().st_size for name, path in named if name.startswith(prefix)}

    def delete(self, names: Iterable[str]) -> None:
        """Remove these objects; one that is not there is a success."""
        for name in names:
            place = self._place(name)
            place.unlink(missing_ok=True)
            _remove_if_empty(place.parent)

    # ------------------------------------------------------------ served to hosts, and written by us

    def admit(self, method: str, name: str, expires: str, signature: str) -> None:
        """Raise `Refused` unless this method on this object was allowed, and still is."""
        if not hmac.compare_digest(self._signature(method, name, expires).encode(), signature.encode()):
            raise Refused("signature: it is not ours for this method and object; ask for a URL of your own")
        if int(expires) < self._clock.now().timestamp():
            raise Refused("expires: this URL is too old; ask for a fresh one")

    def write(self, name: str, content: bytes) -> None:
        """Put one object in its place, as a whole."""
        place = self._place(name)
        fresh = place.with_name(f".{place.name}.{secrets.token_hex(4)}")
        try:
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fresh.write_bytes(content)
            fresh.replace(place)
        except (NotADirectoryError, IsADirectoryError, FileExistsError) as error:
            with suppress(OSError):
                fresh.unlink()
            raise BadInput(f"object: another one is above or below {name!r}; name neither after the other") from error
        except OSError as error:
            fresh.unlink(missing_ok=True)
            raise TryLater(f"the object store in {self._root} takes nothing: {error}") from error

    def _signature(self, method: str, name: str, expires: str) -> str:
        return hmac.new(self._secret, f"{method}\n{name}\n{expires}".encode(), hashlib.sha256).hexdigest()

    def _place(self, name: str) -> Path:
        if not _PLACE.fullmatch(name):
            raise BadInput(f"object: {name!r} is no name; use small letters, digits, hyphens and slashes")
        return self._root / name


class S3Objects:
    """ports.ObjectStore in one bucket. Raises `Unreachable` or `Refused`."""

    def __init__(self, client: Any, bucket: str) -> None:  # noqa: ANN401 boto3 makes its classes when it runs
        self._client, self._bucket = client, bucket

    @classmethod
    def open(cls, bucket: str, region: str | None = None, endpoint: str | None = None) -> S3Objects:
        """Open the store in this bucket, with the credentials that boto3 finds by itself."""
        limits = Config(
            signature_version="s3v4",
            connect_timeout=CONNECT_LIMIT_S,
            read_timeout=READ_LIMIT_S,
            retries={"total_max_attempts": 2},
            s3=REGIONAL if endpoint is None else None,
        )
        return cls(boto3.client("s3", region_name=region, endpoint_url=endpoint, config=limits), bucket)

    def url(self, method: ObjectMethod, name: str, limit: timedelta) -> str:
        """Return where this object may be reached by this method for so long."""
        action = "put_object" if method is ObjectMethod.PUT else "get_object"
        where = {"Bucket": self._bucket, "Key": name}
        return str(self._ask("generate_presigned_url", action, Params=where, ExpiresIn=int(limit.total_seconds())))

    def region(self) -> str | None:
        """Return where the bucket lies, None if that is not said: no URL that is signed for another region is good."""
        answer = self._ask("head_bucket", Bucket=self._bucket)
        said = answer["ResponseMetadata"]["HTTPHeaders"].get("x-amz-bucket-region")
        return str(said) if said else None

    def read(self, name: str) -> bytes | None:
        """Return one object, None if there is none."""
        try:
            return bytes(self._client.get_object(Bucket=self._bucket, Key=name)["Body"].read())
        except self._client.exceptions.NoSuchKey:
            return None
        except (BotoCoreError, ClientError) as error:
            raise self._error("get_object", error) from error

    def write(self, name: str, content: bytes) -> None:
        """Put one object in its place, as a whole."""
        self._ask("put_object", Bucket=self._bucket, Key=name, Body=content)

    def listed(self, prefix: str) -> Mapping[str, int]:
        """Return the name and the size in bytes of every object whose name begins so."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
        try:
            return {found["Key"]: found["Size"] for page in pages for found in page.get("Contents", ())}
        except (BotoCoreError, ClientError) as error:
            raise self._error("list_objects_v2", error) from error

    def delete(self, names: Iterable[str]) -> None:
        """Remove these objects; one that is not there is a success."""
        for some in _batches(names):
            doomed = {"Objects": [{"Key": name} for name in some], "Quiet": True}
            answer = self._ask("delete_objects", Bucket=self._bucket, Delete=doomed)
            if answer.get("Errors"):
                raise Unreachable(f"the bucket {self._bucket} did not delete {answer['Errors'][0]}")

    def _ask(self, call: str, *arguments: object, **named: object) -> Any:  # noqa: ANN401 as boto3 answers
        try:
            return getattr(self._client, call)(*arguments, **named)
        except (BotoCoreError, ClientError) as error:
            raise self._error(call, error) from error

    def _error(self, call: str, error: Exception) -> Refused | Unreachable:
        response = getattr(error, "response", {})
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
        sentence = f"the bucket {self._bucket} answered to {call}: {error}"
        return Refused(sentence) if 400 <= status < 500 else Unreachable(sentence)  # noqa: PLR2004 HTTP's own classes


def _batches(names: Iterable[str]) -> Iterator[list[str]]:
    left = iter(names)
    while some := list(islice(left, DELETED_AT_ONCE)):
        yield some


def _remove_if_empty(directory: Path) -> None:
    try:
        directory.rmdir()
    except OSError:
        return  # others lie there still


def _shared_secret(file: Path) -> bytes:
    """Return the secret in this file; the first process that asks makes it."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    fresh.touch(mode=0o600)
    fresh.write_bytes(secrets.token_bytes(SECRET_BYTES))
    try:
        os.link(fresh, file)
    except FileExistsError:
        return file.read_bytes()
    finally:
        fresh.unlink()
    return file.read_bytes()
