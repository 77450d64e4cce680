"""One suite for every `ports.Cloud`: the fake of the simulation, each real one over the closest real thing, and all.

A cloud joins by a fixture `<name>_cloud` in conftest.py, which opens one that has rented nothing, and by its name in
`CLOUDS`. What it alone does is tested beside this suite, in `test_<name>_cloud.py`.
"""

from __future__ import annotations

import pytest

from tests.contract.clouds import SPEC, TOLD, A, B
from workers.ports import Cloud, InstanceState

CLOUDS = ("fake", "local", "aws", "hetzner", "several")


@pytest.fixture(params=CLOUDS)
def cloud(request: pytest.FixtureRequest) -> Cloud:
    found: Cloud = request.getfixturevalue(f"{request.param}_cloud")
    return found


def test_asking_twice_for_one_host_gives_the_same_instance(cloud: Cloud) -> None:
    first = cloud.launch(A, SPEC, TOLD)
    assert (first.host_id, first.state) == (A, InstanceState.PENDING)
    assert cloud.launch(A, SPEC, TOLD).id == first.id
    assert cloud.launch(B, SPEC, TOLD).id != first.id
    described = cloud.describe(A)
    assert described is not None
    assert (described.id, described.host_id) == (first.id, A)


def test_it_lists_what_it_owns_and_knows_nothing_of_the_rest(cloud: Cloud) -> None:
    assert (list(cloud.owned()), cloud.describe(A)) == ([], None)
    cloud.launch(A, SPEC, TOLD)
    cloud.launch(B, SPEC, TOLD)
    assert {one.host_id for one in cloud.owned()} == {A, B}


def test_ending_twice_or_what_never_was_does_no_harm(cloud: Cloud) -> None:
    cloud.terminate(A)
    cloud.launch(B, SPEC, TOLD)
    cloud.terminate(B)
    cloud.terminate(B)
