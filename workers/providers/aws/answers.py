"""What EC2's refusals mean: each becomes one of the port's errors, with the place, the problem and the remedy.

Messages about credentials are left out, because AWS repeats in some what it was given.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from workers.domain.errors import Barred, NoCapacity, Refused, SpotError, Throttled, TryLater, Unreachable
from workers.providers.aws.quotas import SPOT_STANDARD, STANDARD

NO_CAPACITY: Final = frozenset(
    {
        "InsufficientInstanceCapacity",
        "InsufficientHostCapacity",
        "InsufficientCapacity",
        "InsufficientFreeAddressesInSubnet",
        "InsufficientAddressCapacity",
        "SpotMaxPriceTooLow",
        "UnfulfillableCapacity",
        "Unsupported",  # this type is not sold in this zone
    }
)
# Code -> the quota that is reached; an account may ask for more of it in Service Quotas.
QUOTAS: Final = {
    "MaxSpotInstanceCountExceeded": SPOT_STANDARD,
    "VcpuLimitExceeded": STANDARD,
    "InstanceLimitExceeded": STANDARD,
}
THROTTLED: Final = frozenset(
    {
        "RequestLimitExceeded",
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "RequestThrottled",
        "RequestThrottledException",
        "TooManyRequestsException",
        "EC2ThrottledException",
        "SlowDown",
        "BandwidthLimitExceeded",
    }
)
UNREACHABLE: Final = frozenset(
    {"InternalError", "InternalFailure", "ServiceUnavailable", "Unavailable", "RequestTimeout", "ServerInternal"}
)
CREDENTIALS: Final = frozenset(
    {
        "AuthFailure",
        "InvalidClientTokenId",
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
        "MissingAuthenticationToken",
        "IncompleteSignature",
        "ExpiredToken",
        "ExpiredTokenException",
        "RequestExpired",
    }
)
PERMISSION: Final = frozenset(
    {"UnauthorizedOperation", "AccessDenied", "AccessDeniedException", "UnauthorizedException"}
)
ACCOUNT: Final = frozenset({"OptInRequired", "PendingVerification", "Blocked"})
# EC2 says so of nested virtualization where it has none to give.
UNSUPPORTED: Final = frozenset({"UnsupportedOperation", "InvalidParameterCombination"})
SPENT_TOKEN: Final = frozenset({"IdempotentParameterMismatch", "IdempotentInstanceTerminated"})
REMEDIES: Final = {
    "OptInRequired": "enable the region, or the service, for this account",
    "PendingVerification": "AWS is still checking this account; wait for its mail",
    "Blocked": "AWS has blocked this account; ask its support",
    "InvalidInstanceType": "correct SPOT_RUNNER_AWS_INSTANCE_TYPES",
}
# The beginning of a code -> what the settings have to say instead.
_BEGINNINGS: Final = (
    ("AWS.SimpleQueueService.NonExistentQueue", "correct SPOT_RUNNER_AWS_EVENTS_QUEUE, the queue's URL"),
    ("QueueDoesNotExist", "correct SPOT_RUNNER_AWS_EVENTS_QUEUE, the queue's URL"),
    ("InvalidAMIID", "correct SPOT_RUNNER_AWS_KVM_IMAGE or SPOT_RUNNER_AWS_PVM_IMAGE; images belong to one region"),
    ("InvalidSubnet", "correct SPOT_RUNNER_AWS_SUBNETS; subnets belong to one region"),
    ("InvalidGroup", "correct SPOT_RUNNER_AWS_SECURITY_GROUP; it belongs to the VPC of the subnets"),
    ("InvalidSecurityGroup", "correct SPOT_RUNNER_AWS_SECURITY_GROUP; it belongs to the VPC of the subnets"),
)
_NOTHING_FITS: Final = "docs/clouds.md says what AWS needs"
_PERMISSION: Final = re.compile(r"not authorized to perform:? ([a-z0-9-]+:[A-Za-z]+)")
_LIMIT: Final = re.compile(r"limit of (\d+)")
_TEXT_MAX: Final = 300


@dataclass(frozen=True)
class Answer:
    """A call that EC2 did not carry out."""

    call: str
    code: str
    message: str
    status: int = 400

    @property
    def is_vague(self) -> bool:
        """Whether it was carried out is not known."""
        return self.status >= 500  # noqa: PLR2004 HTTP's own classes


def error_of(
    answer: Answer, region: str, quota: Callable[[str], str | None] = lambda _: None, service: str = "ec2"
) -> SpotError:
    """Return the port's error for this answer; `quota` reads how much an account may have of something."""
    place, code = f"AWS {region}: {answer.call}", answer.code
    if code in NO_CAPACITY:
        return NoCapacity(f"{place}: {code}: {_short(answer)}; allow more instance types, zones or on-demand")
    if code in QUOTAS:
        return NoCapacity(f"{place}: {_quota(answer, quota)}")
    if code in THROTTLED:
        return Throttled(f"{place}: {code}: AWS asks us to slow down; the next sweep asks again")
    if code in CREDENTIALS:
        return Barred(f"{place}: {code}: AWS does not take our credentials; correct those that boto3 finds, by the "
                       "instance's role, AWS_PROFILE or ~/.aws")  # fmt: skip
    if code in PERMISSION:
        return Barred(f"{place}: {code}: the permission {permission_of(answer, service)} is missing; add it to the "
                       "control plane's role (docs/clouds.md has them all)")  # fmt: skip
    if code in SPENT_TOKEN:
        return Unreachable(f"{place}: {code}: it was asked in other words before; the next look finds what came of it")
    if code in UNREACHABLE or answer.is_vague:
        return Unreachable(f"{place}: {code}: {_short(answer)}; the next sweep asks again")
    error = Barred if code in ACCOUNT else Refused
    return error(f"{place}: {code}: {_short(answer)}; {_remedy(code)}")


def worst(errors: Sequence[SpotError]) -> SpotError:
    """Return what to make of a fleet of which every pool said something: what may change is worth another try."""
    later = [one for one in errors if isinstance(one, TryLater)]
    first, *others = later or errors
    more = f" (and {len(others)} more pools said such things)" if others else ""
    return type(first)(f"{first}{more}")


def _quota(answer: Answer, quota: Callable[[str], str | None]) -> str:
    reached = QUOTAS[answer.code]
    said = _LIMIT.search(answer.message)
    number = said[1] if said else quota(reached.code)
    amount = "is used up, and how much it is servicequotas:GetServiceQuota would tell" if number is None else (
        f"of {number} vCPUs is used up"
    )  # fmt: skip
    return f"{answer.code}: the quota {reached} {amount}; ask for more in Service Quotas, or allow other terms"


def permission_of(answer: Answer, service: str = "ec2") -> str:
    """Name what is missing: EC2 says it for other services' permissions, and for its own it is the call's name."""
    said = _PERMISSION.search(answer.message)
    return said[1] if said else f"{service}:{answer.call}"


def _remedy(code: str) -> str:
    begun = (remedy for beginning, remedy in _BEGINNINGS if code.startswith(beginning))
    return REMEDIES.get(code) or next(begun, _NOTHING_FITS)


def _short(answer: Answer) -> str:
    return " ".join(answer.message.split())[:_TEXT_MAX].rstrip(".")
