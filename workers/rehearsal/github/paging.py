"""Pages of a list, as every list of GitHub's API is cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeVar

from flask import request

PER_PAGE: Final = 30
PER_PAGE_MAX: Final = 100

Row = TypeVar("Row")


def page_size() -> int:
    """Return how many rows the request wants at once."""
    return max(1, min(int(request.args.get("per_page", PER_PAGE)), PER_PAGE_MAX))


def page_of(rows: Sequence[Row]) -> Sequence[Row]:
    """Return the page that the request asks for."""
    first = (int(request.args.get("page", 1)) - 1) * page_size()
    return rows[first : first + page_size()]
