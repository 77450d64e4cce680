"""A bucket at moto, behind a door that does what moto does not: it looks at signatures, their region and their end.

    caller ──▶ Door ──▶ moto's S3        what befalls a call is said in `before`, which may answer instead

S3's own rules stand in its API reference, "Authenticating Requests: Using Query Parameters (AWS Signature Version 4)".
"""

from __future__ import annotations

import hashlib
import hmac
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote
from wsgiref.types import StartResponse, WSGIEnvironment

import boto3
import httpx
from botocore.config import Config
from werkzeug import Request, Response

from tests.contract.aws_cloud import KEYS, REGION
from tests.contract.clouds import answering
from workers.rehearsal.aws.faults import FORWARD_LIMIT_S, OF_THE_WIRE

BUCKET = "packages-of-the-test"
ELSEWHERE = "eu-west-3"
"""Where the bucket lies, which is not where builders run."""


class Door:
    """A WSGI application in front of moto's S3."""

    def __init__(self, moto: str) -> None:
        self._moto, self._lock = moto, threading.Lock()
        self.asked: list[tuple[str, str]] = []
        """Method and path of each call."""
        self.before: Callable[[Request], Response | None] = lambda _: None

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = Request(environ)
        with self._lock:
            self.asked.append((request.method, request.path))
        answer = _refusal(request) or self.before(request) or self._forward(request)
        return answer(environ, start_response)

    def _forward(self, request: Request) -> Response:
        kept = {key: value for key, value in request.headers.items() if key.lower() != "content-length"}
        told = httpx.request(
            request.method,
            f"{self._moto}{request.full_path}",
            content=request.get_data(),
            headers=kept,
            timeout=FORWARD_LIMIT_S,
            trust_env=False,
        )
        headers = [(key, value) for key, value in told.headers.multi_items() if key.lower() not in OF_THE_WIRE]
        return Response(told.content, told.status_code, headers=headers)


@contextmanager
def bucket(moto: str) -> Iterator[tuple[Door, str]]:
    """Give the door and its address; the bucket is there, and empty."""
    direct = at_home(moto)
    if BUCKET not in [one["Name"] for one in direct.list_buckets()["Buckets"]]:
        direct.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": ELSEWHERE})
    for one in objects(moto):
        direct.delete_object(Bucket=BUCKET, Key=one)
    door = Door(moto)
    with answering(door) as url:
        yield door, url
    direct.close()


def at_home(moto: str) -> Any:  # noqa: ANN401 boto3 makes its classes when it runs
    """Return a client that no door stands before."""
    return boto3.client("s3", region_name=ELSEWHERE, endpoint_url=moto, config=Config(connect_timeout=2), **KEYS)


def objects(moto: str, prefix: str = "") -> list[str]:
    """Return the names of what lies in the bucket."""
    pages = at_home(moto).get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
    return [one["Key"] for page in pages for one in page.get("Contents", ())]


def environment(url: str) -> dict[str, str]:
    """Return the environment of a command whose object store this is; it does not know where the bucket lies."""
    keys = {name.upper(): value for name, value in KEYS.items()}
    told = {"OBJECTS_BUCKET": BUCKET, "OBJECTS_ENDPOINT": url}
    return {**keys, "AWS_DEFAULT_REGION": REGION, **{f"SPOT_RUNNER_{name}": value for name, value in told.items()}}


def refused(code: str, message: str, status: int = 403) -> Response:
    """Answer as S3 refuses."""
    head = '<?xml version="1.0" encoding="UTF-8"?>\n'
    body = f"{head}<Error><Code>{code}</Code><Message>{message}</Message><HostId>x</HostId></Error>"
    return Response(body, status, {"x-amz-bucket-region": ELSEWHERE}, content_type="application/xml")


def _refusal(request: Request) -> Response | None:
    signed = request.args.get("X-Amz-Credential") or request.headers.get("Authorization", "")
    scope = re.search(r"AKIAEXAMPLE/(\d{8})/([a-z0-9-]+)/s3/aws4_request", signed)
    if scope is None:
        return refused("AccessDenied", "Access Denied")
    if scope[2] != ELSEWHERE:
        return refused("AuthorizationHeaderMalformed", f"the region '{scope[2]}' is wrong; expecting it", 400)
    if "X-Amz-Signature" not in request.args:
        return None
    made_at = datetime.strptime(request.args["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    if datetime.now(UTC) > made_at + timedelta(seconds=int(request.args["X-Amz-Expires"])):
        return refused("AccessDenied", "Request has expired")
    if not hmac.compare_digest(_signature(request, scope[1]), request.args["X-Amz-Signature"]):
        return refused("SignatureDoesNotMatch", "The request signature we calculated does not match")
    return None


def _signature(request: Request, day: str) -> str:
    named = sorted((key, value) for key, value in request.args.items() if key != "X-Amz-Signature")
    query = "&".join(f"{quote(key, safe='')}={quote(value, safe='')}" for key, value in named)
    asked = f"{request.method}\n{quote(request.path)}\n{query}\nhost:{request.host}\n\nhost\nUNSIGNED-PAYLOAD"
    scope = f"{day}/{ELSEWHERE}/s3/aws4_request"
    hashed = hashlib.sha256(asked.encode()).hexdigest()
    key = f"AWS4{KEYS['aws_secret_access_key']}".encode()
    for word in scope.split("/"):
        key = hmac.digest(key, word.encode(), "sha256")
    return hmac.digest(
        key, f"AWS4-HMAC-SHA256\n{request.args['X-Amz-Date']}\n{scope}\n{hashed}".encode(), "sha256"
    ).hex()
