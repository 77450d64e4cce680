"""What Hetzner's refusals mean: each becomes one of the port's errors, with the place, the problem and the remedy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from workers.domain.errors import Barred, NoCapacity, Refused, SpotError, Throttled, Unreachable

NAME_TAKEN: Final = "uniqueness_error"
NOT_FOUND: Final = "not_found"
LIMIT_REACHED: Final = "resource_limit_exceeded"
# What is sold where changes from hour to hour; for these another type or location may be had.
ELSEWHERE: Final = frozenset({"resource_unavailable", "placement_error", "maintenance", "unavailable"})
# Hetzner's words for a type that it lists with a price for a location, and does not sell there.
NOT_SOLD_THERE: Final = "unsupported location for server type"
BUSY: Final = frozenset({"locked", "conflict"})
VAGUE: Final = frozenset({"server_error", "service_error", "unknown_error", "bad_gateway", "timeout"})
REMEDIES: Final = {
    "unauthorized": "Hetzner does not know our token; put a valid one into SPOT_RUNNER_HETZNER_TOKEN_FILE",
    "token_readonly": "our token may only read; put one with read and write into SPOT_RUNNER_HETZNER_TOKEN_FILE",
    "forbidden": "our token may not do that; put one with read and write into SPOT_RUNNER_HETZNER_TOKEN_FILE",
    "protected": "somebody has protected it; take the protection away in Hetzner's console",
    "resource_locked": "Hetzner has locked it; ask its support",
    "deprecated_api_endpoint": "this version of spot-runner is too old for Hetzner's API; install a newer one",
    "invalid_server_type": "correct SPOT_RUNNER_HETZNER_SERVER_TYPES",
}
ACCOUNT: Final = frozenset({"unauthorized", "token_readonly", "forbidden"})
_OTHERWISE: Final = "docs/clouds.md says what Hetzner needs"
_SERVER_ERRORS: Final = 500
_TOO_MANY: Final = 429
_TEXT_MAX: Final = 300


@dataclass(frozen=True)
class Answer:
    """A call that Hetzner did not carry out."""

    call: str
    code: str | int
    """Hetzner's own, or HTTP's where the answer was not in Hetzner's form."""
    message: str
    details: Mapping[str, object] = field(default_factory=dict)

    @property
    def is_no_room(self) -> bool:
        """Something else, or somewhere else, may be had."""
        return self.code in ELSEWHERE or (self.code == "invalid_input" and self.message.startswith(NOT_SOLD_THERE))

    @property
    def limits(self) -> str:
        """Return the names of the limits that are reached."""
        limits = self.details.get("limits") or ()
        names = [one.get("name", "") for one in limits if isinstance(one, Mapping)] if isinstance(limits, list) else []
        return ", ".join(names) or self.message


def error_of(answer: Answer, servers: int | None = None) -> SpotError:
    """Return the port's error for this answer; `servers` is how many there are in the project, if that is known."""
    place, code = f"Hetzner: {answer.call}", answer.code
    text = answer.message[:_TEXT_MAX]
    if code == LIMIT_REACHED:
        amount = "" if servers is None else f" with {servers} servers in this project"
        return NoCapacity(
            f"{place}: the limit {answer.limits} is reached{amount}; end servers, lower SPOT_RUNNER_HOSTS_MAX, or ask "
            "for more under Limits in Hetzner's console"
        )
    if answer.is_no_room:
        return NoCapacity(f"{place}: {text} ({code}); allow more server types or locations")
    if code in {"rate_limit_exceeded", _TOO_MANY}:
        return Throttled(f"{place}: the requests of this hour are used up ({code}); the next sweep asks again")
    if code in BUSY:
        return Throttled(f"{place}: {text} ({code}); the next look asks again, when what is under way has ended")
    if code in VAGUE or (isinstance(code, int) and code >= _SERVER_ERRORS):
        return Unreachable(f"{place}: {text} ({code}); the next look finds what came of it, and asks again")
    error = Barred if code in ACCOUNT else Refused
    return error(f"{place}: {text} ({code}); {REMEDIES.get(str(code), _OTHERWISE)}")
