"""What we say beside a commit, where whoever wrote the workflow looks: a check run on GitHub.

A remark has a key, and under one key there is one remark: said again it is the
same one, and with other words it takes the place of what stood there.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum, auto


class Verdict(StrEnum):
    """GitHub's conclusions, as far as we have use for them."""

    NEUTRAL = auto()
    """It stands in nobody's way."""
    ACTION_REQUIRED = auto()
    """Nothing happens until somebody does something."""


@dataclass(frozen=True)
class Remark:
    """A check run of ours."""

    key: str
    installation_id: int
    repository: str
    head_sha: str
    name: str
    verdict: Verdict
    title: str
    summary: str
    """Markdown."""
