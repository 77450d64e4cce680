"""What holds for every test."""

from __future__ import annotations

import pytest
from hypothesis import settings

# Machines are shared and noisy: how long one example takes says nothing about the code.
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")


@pytest.hookimpl(tryfirst=True)  # else the names of the tests are settled before their groups are
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let microVMs take turns: rehearsals in one process, single engines in another, what needs none beside them."""
    for item in items:
        if item.get_closest_marker("guest"):
            item.add_marker(pytest.mark.xdist_group("rehearsals" if item.get_closest_marker("rehearsal") else "guests"))
