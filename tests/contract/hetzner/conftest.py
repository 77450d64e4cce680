from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.hetzner.sides import IMAGE_LABELS, Hetzner, hetzner, rented_from
from workers.providers.hetzner.cloud import Hetzner as HetznerCloud


@pytest.fixture
def place() -> Iterator[Hetzner]:
    """A simulated project of this test's own."""
    with hetzner() as simulated:
        yield simulated


@pytest.fixture
def stocked(place: Hetzner) -> Hetzner:
    """A project with the image that hosts boot."""
    place.image(IMAGE_LABELS)
    return place


@pytest.fixture
def cloud(stocked: Hetzner) -> Iterator[HetznerCloud]:
    with rented_from(stocked) as opened:
        yield opened
