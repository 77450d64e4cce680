"""What an IAM policy allows, as far as ours use its language: Allow only, and four kinds of conditions.

The semantics are those of "Policy evaluation logic" in the IAM User Guide: an action on a resource is allowed if one
statement names both and all of its conditions hold; a condition's key that the request does not have does not hold.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final


@dataclass(frozen=True)
class Act:
    """One thing that somebody wants to do."""

    action: str
    resource: str = "*"
    keys: Mapping[str, str] = field(default_factory=dict)
    """The request's context, such as `aws:RequestTag/team`."""


def like(pattern: str, value: str) -> bool:
    parts = (re.escape(part).replace(r"\?", ".") for part in pattern.split("*"))
    return re.fullmatch(".*".join(parts), value) is not None


OPERATORS: Final[Mapping[str, Callable[[str, str], bool]]] = {
    "StringEquals": str.__eq__,
    "StringLike": like,
    "ArnEquals": like,
    "ArnLike": like,
}


def allows(policies: Sequence[Mapping[str, Any]], act: Act) -> bool:
    """Say whether one statement of these documents allows it."""
    return any(_is_allowed(one, act) for policy in policies for one in policy["Statement"])


def actions(policies: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield every action that is named."""
    for policy in policies:
        for one in policy["Statement"]:
            yield from _several(one["Action"])


def _is_allowed(statement: Mapping[str, Any], act: Act) -> bool:
    assert statement["Effect"] == "Allow", "this reads no other"
    assert not {"NotAction", "NotResource", "Principal"} & set(statement)
    return (
        any(like(one, act.action) for one in _several(statement["Action"]))
        and any(like(one, act.resource) for one in _several(statement["Resource"]))
        and all(
            key in act.keys and any(OPERATORS[operator](wanted, act.keys[key]) for wanted in _several(values))
            for operator, conditions in statement.get("Condition", {}).items()
            for key, values in conditions.items()
        )
    )


def _several(value: str | Sequence[str | None]) -> Sequence[str]:
    """Return what stands there; None is what moto makes of AWS::NoValue in a list."""
    return [value] if isinstance(value, str) else [one for one in value if one is not None]
