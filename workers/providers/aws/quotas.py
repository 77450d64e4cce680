"""How many vCPUs an account may have at once, by families of instance types. Pure.

The codes are those of Service Quotas, service `ec2`; which families share one is said in "Amazon EC2 instance type
quotas" of the EC2 User Guide.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Quota:
    """One limit; an account may ask for more of it in Service Quotas."""

    name: str
    code: str

    def __str__(self) -> str:
        return f"“{self.name}” ({self.code})"


STANDARD: Final = Quota("Running On-Demand Standard instances", "L-1216C47A")
SPOT_STANDARD: Final = Quota("All Standard Spot Instance Requests", "L-34B43A08")
_BOTH: Final = {
    "standard": (STANDARD, SPOT_STANDARD),
    "f": (Quota("Running On-Demand F instances", "L-74FC7D96"), Quota("All F Spot Instance Requests", "L-88CF9481")),
    "g": (
        Quota("Running On-Demand G and VT instances", "L-DB2E81BA"),
        Quota("All G and VT Spot Instance Requests", "L-3819A6DF"),
    ),
    "p": (Quota("Running On-Demand P instances", "L-417A185B"), Quota("All P Spot Instance Requests", "L-7212CCBC")),
    "x": (Quota("Running On-Demand X instances", "L-7295265B"), Quota("All X Spot Instance Requests", "L-E3A00192")),
}
_GROUPS: Final = {
    **dict.fromkeys(("a", "c", "d", "h", "i", "im", "is", "m", "r", "t", "z"), "standard"),
    **dict.fromkeys(("g", "gr", "vt"), "g"),
    **{family: family for family in ("f", "p", "x")},
}
_FAMILY: Final = re.compile(r"([a-z]+)[0-9]")


def quota_of(instance_type: str, *, is_spot: bool) -> Quota | None:
    """Return what limits how many of these may run; None for families that are rarely hosts and not known here."""
    family = _FAMILY.match(instance_type)
    group = _GROUPS.get(family[1]) if family else None
    return None if group is None else _BOTH[group][is_spot]
