"""What a host tells its guest of where it is, and how long it stood still: nothing that is not known."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from workers.domain.messages import BootOrder
from workers.domain.migration import Migration, MigrationPhase, stood_ms
from workers.domain.names import HostId, MigrationId, PackageDigest, RunnerId, guest_address
from workers.domain.runner import Shape
from workers.domain.whereabouts import Machine, Whereabouts
from workers.host.microvm import told_place

ORDER = BootOrder(RunnerId("r"), 1, 0, PackageDigest("sha256:00"), Shape(1, 1024, 4096), guest_address(0))
HOST = HostId("spot-host-a")
WHERE = Whereabouts("aws", Machine("eu-central-1", "eu-central-1b", "c7i.2xlarge", "spot", 0.36), 0.09)


def test_a_guest_is_told_its_own_price_and_not_the_machines() -> None:
    order = replace(ORDER, hold_limit_s=600, whereabouts=WHERE)
    assert told_place(order, HOST, 2) == {
        "runner_id": "r",
        "host_id": HOST,
        "moves": 2,
        "hold_limit_s": 600,
        "provider": "aws",
        "region": "eu-central-1",
        "zone": "eu-central-1b",
        "instance_type": "c7i.2xlarge",
        "lifecycle": "spot",
        "package": "sha256:00",
        "usd_per_hour": 0.09,
    }


def test_what_is_not_known_is_null() -> None:
    told = told_place(ORDER, HOST, 0)
    assert {name for name, value in told.items() if value is None} == {
        "provider",
        "region",
        "zone",
        "instance_type",
        "lifecycle",
        "usd_per_hour",
    }


@pytest.mark.parametrize(
    ("figures", "stood"),
    [
        ({}, None),
        ({"stopped_at": 100.0}, None),
        ({"completed_at": 100.0}, None),
        ({"stopped_at": 100.0, "completed_at": 100.0625}, 62.5),
        ({"stopped_at": 100.0, "completed_at": 99.0}, 0.0),
    ],
)
def test_how_long_a_guest_stood_is_of_one_clock(figures: dict[str, float], stood: float | None) -> None:
    now = datetime(2026, 11, 23, tzinfo=UTC)
    row = Migration(
        MigrationId("m"), RunnerId("r"), HOST, HostId("b"), MigrationPhase.PAUSED, 2, now, now + timedelta(minutes=1)
    )
    assert stood_ms(replace(row, figures=figures)) == stood
