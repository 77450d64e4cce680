"""EC2 as moto plays it, and what moto lacks: faults on demand, and client tokens that are answered again.

    adapter ──▶ Faults ──▶ moto's server        a planted fault is for the next call of its name, and used up by it

moto 5.2 makes instances of an instant fleet, with their tags and user data, and takes no notice of a template's
metadata options, processors, network interfaces, disks and profile. So what is asked for is kept here, and tests look
at that. What moto answers without meaning it, spot prices for example, is answered by whoever was named for it. Its
server asks nobody for permission either: who is refused, and which permissions are missing, is said here, and a dry run
is answered as EC2 does it, which looks at permissions first and then at what is named.
"""

from __future__ import annotations

import json
import socket
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlencode
from wsgiref.types import StartResponse, WSGIEnvironment
from xml.sax.saxutils import escape

import httpx
from werkzeug import Request, Response

XMLNS: Final = "http://ec2.amazonaws.com/doc/2016-11-15/"
DELAY_LIMIT_S: Final = 20.0
FORWARD_LIMIT_S: Final = 30.0
# They belong to one connection, or are made anew for the answer.
OF_THE_WIRE: Final = frozenset(
    {"connection", "content-encoding", "content-length", "date", "server", "transfer-encoding"}
)


@dataclass(frozen=True)
class Refuses:
    """The whole call is refused."""

    code: str
    message: str = "no"
    status: int = 400


@dataclass(frozen=True)
class Sells:
    """The fleet has nothing, and says why for each pool: (code, instance type, message)."""

    errors: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class LosesAnswer:
    """The call is carried out, and the connection breaks before its answer."""


@dataclass(frozen=True)
class Hangs:
    """The call is not answered until the test is over."""

    over: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class Hides:
    """Instances are not to be seen yet, as EC2 shows them some seconds after they were made."""


@dataclass(frozen=True)
class Says:
    """The call is answered so, whatever moto would say; some it does not know at all."""

    body: str
    content_type: str = "text/xml"
    status: int = 200


Fault = Refuses | Sells | LosesAnswer | Hangs | Hides | Says
Answers = Mapping[str, Callable[[Mapping[str, str]], Says]]
"""Call -> what is said to its form instead of moto's own answer."""


class Faults:
    """A WSGI application in front of moto's server."""

    def __init__(self, moto: str, answers: Answers | None = None) -> None:
        self._moto, self._answers = moto, answers or {}
        self._planted: defaultdict[str, deque[Fault]] = defaultdict(deque)
        self._answered: dict[str, tuple[Mapping[str, str], bytes]] = {}
        self.calls: list[Mapping[str, str]] = []
        self.counted = Counter[str]()
        """How often each call was made, whatever it speaks."""
        self.missing: set[str] = set()
        """Permissions that nobody has."""
        self.strangers: set[str] = set()
        """Access keys that AWS does not know."""

    def forget(self) -> None:
        """Begin another test: nothing is planted, everything is allowed, and nothing was asked."""
        self._planted.clear()
        self.missing.clear()
        self.strangers.clear()
        self.calls.clear()

    def plant(self, call: str, *faults: Fault) -> None:
        """Let these befall the next calls of this name, one each."""
        self._planted[call].extend(faults)

    def asked(self, call: str) -> list[Mapping[str, str]]:
        """Return every call of this name, as its form said it."""
        return [one for one in self.calls if one.get("Action") == call]

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = Request(environ)
        body, form = request.get_data(cache=True), request.form.to_dict()
        call = form.get("Action") or request.headers.get("X-Amz-Target", "").rpartition(".")[2]
        self.calls.append(form)
        self.counted[call] += 1
        planted = self._planted[call]
        fault: Fault | None = self._unauthorized(call, form, request.headers.get("Authorization", ""))
        if fault is None and planted:
            fault = planted.popleft()
        if fault is None and call in self._answers:
            fault = self._answers[call](form)
        if isinstance(fault, Refuses) and "X-Amz-Target" in request.headers:  # a service that speaks JSON
            words = json.dumps({"__type": fault.code, "message": fault.message})
            fault = Says(words, "application/x-amz-json-1.1", fault.status)
        ask = self._forward if form.get("DryRun") != "true" else self._dry
        answer = self._told(fault, call, form, lambda: ask(request, body))
        if answer is None:
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            answer = Response()
        return answer(environ, start_response)

    def _told(
        self, fault: Fault | None, call: str, form: Mapping[str, str], forward: Callable[[], Response]
    ) -> Response | None:
        match fault:
            case Refuses(code, message, status):
                return Response(_error(code, message), status, content_type="text/xml")
            case Sells(errors):
                return self._remembered(call, form, lambda: Response(_nothing(errors), content_type="text/xml"))
            case Says(body, content_type, status):
                return Response(body, status, content_type=content_type)
            case Hides():
                nothing = f'<DescribeInstancesResponse xmlns="{XMLNS}"><reservationSet/></DescribeInstancesResponse>'
                return Response(nothing, content_type="text/xml")
            case Hangs(over):
                over.wait(DELAY_LIMIT_S)
                return None
            case LosesAnswer():
                self._remembered(call, form, forward)
                return None
            case None:
                return self._remembered(call, form, forward)

    def _remembered(self, call: str, form: Mapping[str, str], answer: Callable[[], Response]) -> Response:
        """Answer a fleet's client token as before, and refuse it with other words, as EC2 does."""
        token = form.get("ClientToken", "")
        if call != "CreateFleet":
            return answer()
        words = {key: value for key, value in form.items() if not key.startswith(("X-Amz", "Signature"))}
        if token in self._answered:
            before, body = self._answered[token]
            if before != words:
                return Response(_error("IdempotentParameterMismatch", "other words"), 400, content_type="text/xml")
            return Response(body, content_type="text/xml")
        made = answer()
        if made.status_code == httpx.codes.OK:
            self._answered[token] = (words, made.get_data())
        return made

    def _unauthorized(self, call: str, form: Mapping[str, str], authorization: str) -> Refuses | None:
        if any(f"Credential={key}/" in authorization for key in self.strangers):
            return Refuses("AuthFailure", "AWS was not able to validate the provided access credentials", 401)
        lacking = next((one for one in needed(call, form) if one in self.missing), None)
        if lacking is None:
            return None
        code = "UnauthorizedOperation" if "Action" in form else "AccessDeniedException"
        who = "You are not authorized to perform this operation. User: arn:aws:iam::123456789012:user/test"
        why = f"because no identity-based policy allows the {lacking} action"
        return Refuses(code, f"{who} is not authorized to perform: {lacking} on resource: * {why}", 403)

    def _dry(self, request: Request, body: bytes) -> Response:
        """Answer a dry run; moto carries some out, so what only reads is not handed on."""
        form = request.form
        if form["Action"].startswith(("Describe", "Get")):
            return Response(_error("DryRunOperation", "Request would have succeeded"), 412, content_type="text/xml")
        if group := form.get("NetworkInterface.1.SecurityGroupId.1"):
            look = urlencode({"Action": "DescribeSecurityGroups", "Version": form["Version"], "GroupId.1": group})
            found = self._forward(request, look.encode())
            if found.status_code != httpx.codes.OK:
                return found
        return self._forward(request, body)

    def _forward(self, request: Request, body: bytes) -> Response:
        kept = {key: value for key, value in request.headers.items() if key.lower() != "content-length"}
        told = httpx.request(
            request.method,
            f"{self._moto}{request.full_path}",
            content=body,
            headers=kept,
            timeout=FORWARD_LIMIT_S,
            trust_env=False,
        )
        headers = [(key, value) for key, value in told.headers.multi_items() if key.lower() not in OF_THE_WIRE]
        return Response(told.content, told.status_code, headers=headers)


def needed(call: str, form: Mapping[str, str]) -> Iterator[str]:
    """Yield which permissions a call needs."""
    yield {"GetServiceQuota": "servicequotas:", "GetProducts": "pricing:"}.get(call, "ec2:") + call
    if any(key.startswith("TagSpecification") for key in form):
        yield "ec2:CreateTags"
    if any(key.startswith("IamInstanceProfile.") for key in form):
        yield "iam:PassRole"


def _error(code: str, message: str) -> str:
    said = f"<Code>{escape(code)}</Code><Message>{escape(message)}</Message>"
    return f"<Response><Errors><Error>{said}</Error></Errors><RequestID>r-1</RequestID></Response>"


def _nothing(errors: Iterable[tuple[str, str, str]]) -> str:
    items = "".join(
        "<item><launchTemplateAndOverrides><overrides>"
        f"<instanceType>{escape(kind)}</instanceType></overrides></launchTemplateAndOverrides>"
        f"<errorCode>{escape(code)}</errorCode><errorMessage>{escape(message)}</errorMessage></item>"
        for code, kind, message in errors
    )
    return (
        f'<CreateFleetResponse xmlns="{XMLNS}"><fleetId>fleet-0</fleetId><errorSet>{items}</errorSet>'
        "<fleetInstanceSet/></CreateFleetResponse>"
    )
