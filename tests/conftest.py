"""What holds for every test."""

from __future__ import annotations

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

# Machines are shared and noisy: how long one example takes says nothing about the code.
settings.register_profile("shared", deadline=None)
# What decides whether a change lands draws the same examples each time: a change answers for itself alone, and what
# somebody's `./dev test` has found is written down as an example.
settings.register_profile("gate", deadline=None, derandomize=True)
settings.load_profile("shared")

REHEARSALS = ("tests/e2e/test_demo.py", "tests/e2e/test_drill.py")
GUESTS = "tests/e2e/"
FIRST = {"rehearsals": 0, "guests": 1}


class Turns(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Lets microVMs take turns: rehearsals in one process, single engines in another, and the rest beside them.

    (What `--dist=loadgroup` is for does nothing under pytest 9.2, whose tests cannot be renamed any more.)
    """

    def _split_scope(self, nodeid: str) -> str:
        return turn_of(nodeid)


def turn_of(nodeid: str) -> str:
    """Return the name that all tests have in common that must not run at the same time."""
    file = nodeid.partition("::")[0]
    if file in REHEARSALS:
        return "rehearsals"
    return "guests" if file.startswith(GUESTS) else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Turns:
    return Turns(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest."""
    items.sort(key=lambda item: FIRST.get(turn_of(item.nodeid), len(FIRST)))
