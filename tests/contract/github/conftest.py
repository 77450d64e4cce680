from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest

from tests.contract.github.places import Place, simulated_github
from tests.contract.github.sides import FakeSide, Side, SimulatedSide

_numbers = count(1)


@pytest.fixture(scope="session")
def patient_github(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A simulated GitHub with GitHub's own limits, shared."""
    with simulated_github(tmp_path_factory.mktemp("patient")) as place:
        yield place


@pytest.fixture(scope="session")
def hasty_github(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A simulated GitHub whose job lock lives for six seconds, shared: a machine may stand still for some of them."""
    with simulated_github(tmp_path_factory.mktemp("hasty"), lock_seconds=6) as place:
        yield place


@pytest.fixture
def place(patient_github: Place) -> Iterator[Place]:
    """The patient GitHub with an account of this test's own, and nothing that breaks the contract in it."""
    yield from _own_account(patient_github)


@pytest.fixture
def hasty(hasty_github: Place) -> Iterator[Place]:
    """The hasty GitHub with an account of this test's own, and nothing that breaks the contract in it."""
    yield from _own_account(hasty_github)


def _own_account(shared: Place) -> Iterator[Place]:
    owner = f"org-{next(_numbers)}"
    yield Place(shared.url, shared.control, shared.receiver, shared.control.install(owner), owner, shared.http)
    assert shared.control.violations() == []


@pytest.fixture(params=["simulated", "fake"])
def side(request: pytest.FixtureRequest) -> Side:
    """Every implementation of the port, one after the other."""
    return FakeSide() if request.param == "fake" else SimulatedSide(request.getfixturevalue("place"))
