"""A host image at the simulated Hetzner: made once, found again, and no builder is left, whatever fails or kills us."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from tests.contract.hetzner.sides import TOKEN, Hetzner, hetzner, plant
from workers.domain.errors import Refused, SpotError, Unreachable
from workers.providers.hetzner.account import Account
from workers.providers.hetzner.builder import BUILDER_LABEL, IMAGE_LABEL, Builder, Order
from workers.providers.hetzner.requests import Rental
from workers.rehearsal.hetzner.faults import FaultKind

ORDER = Order(
    name="spot-runner-mine-0123",
    key="0123",
    kind="pvm",
    origin="debian-12",
    server_type="cx42",
    location="nbg1",
    user_data="#cloud-config\n{}\n",
)
RENTAL = Rental(deployment="images", overlay_port=51820)


@pytest.fixture
def place() -> Iterator[Hetzner]:
    with hetzner() as found:
        yield found


def switches_off(place: Hetzner) -> None:
    """Let every builder that runs be done with its work."""
    project = place.simulation.project
    with project.lock:
        for server in project.servers.values():
            if server.status == "running":
                project.switch_off(server)


def made(place: Hetzner, order: Order = ORDER, works: Callable[[Hetzner], None] = switches_off) -> int:
    def pause(seconds: float) -> None:
        place.pass_time(seconds)
        works(place)

    with closing(Account.open(RENTAL, TOKEN, place.clock, f"{place.url}/v1")) as account:
        return Builder(account, place.clock, pause).make(order)


def left(place: Hetzner) -> tuple[int, int]:
    """Return how many servers and snapshots there are."""
    project = place.simulation.project
    with project.lock:
        project.settle()
        return len(project.servers), sum(image.type == "snapshot" for image in project.images.values())


def test_an_image_is_the_snapshot_of_what_the_builder_became(place: Hetzner) -> None:
    number = made(place)
    image = place.client().images.get_by_id(number)
    assert (image.status, image.description, image.labels) == (
        "available",
        ORDER.name,
        {IMAGE_LABEL: "pvm", "spot-runner/image-key": "0123"},
    )
    assert left(place) == (0, 1)
    (builder,) = place.simulation.project.deleted
    assert (builder.name, builder.user_data) == (f"{ORDER.name}-builder", ORDER.user_data)


def test_hosts_boot_it(place: Hetzner) -> None:
    number = made(place)
    with closing(Account.open(RENTAL, TOKEN, place.clock, f"{place.url}/v1")) as account:
        assert account.image.id == number


def test_asked_again_it_makes_nothing(place: Hetzner) -> None:
    assert made(place) == made(place)
    assert left(place) == (0, 1)
    assert len(place.simulation.project.deleted) == 1


def test_another_image_is_made_beside_it(place: Hetzner) -> None:
    assert made(place) != made(place, replace(ORDER, name="spot-runner-mine-4567", key="4567"))
    assert left(place) == (0, 2)


def test_a_builder_that_does_not_come_to_an_end_is_deleted(place: Hetzner) -> None:
    with pytest.raises(Unreachable, match=r"not seen within 0:45:00 that the builder has done its work"):
        made(place, works=lambda place: place.pass_time(600))
    assert left(place) == (0, 0)


def test_a_builder_that_somebody_deletes_is_not_waited_for(place: Hetzner) -> None:
    def deletes(place: Hetzner) -> None:
        project = place.simulation.project
        for server in list(project.servers.values()):
            if server.status == "running":
                project.delete_server(server)

    with pytest.raises(Refused, match="is gone before its work was done"):
        made(place, works=deletes)
    assert left(place) == (0, 0)


@pytest.mark.parametrize(("minutes", "servers"), [(70, 1), (80, 0)])
def test_another_image_s_builder_is_deleted_when_nobody_can_be_waiting_for_it(
    place: Hetzner, minutes: int, servers: int
) -> None:
    place.created("spot-runner-theirs-4567-builder", labels={BUILDER_LABEL: "4567"})
    place.pass_time(60 * minutes)
    made(place)
    assert left(place) == (servers, 1)


def test_a_server_that_is_no_builder_is_let_alone(place: Hetzner) -> None:
    place.created(ORDER.builder)
    with pytest.raises(Refused, match="that is no builder"):
        made(place)
    assert left(place) == (1, 0)


@pytest.mark.parametrize("kind", [FaultKind.DOWN, FaultKind.LOST])
@pytest.mark.parametrize("path", ["/servers", "/create_image"])
def test_whatever_fails_no_builder_is_left_and_the_next_call_makes_it(
    place: Hetzner, path: str, kind: FaultKind
) -> None:
    plant(place, kind, "POST", path)
    with pytest.raises(SpotError):
        made(place)
    assert left(place)[0] == 0
    made(place)
    assert left(place) == (0, 1)


KILLED = """
import os, signal, sys, time
from tests.contract.hetzner.test_image_builder import *
from tests.fakes.clock import FakeClock
url, method, path, when = sys.argv[1:]
clock = FakeClock()
account = Account.open(RENTAL, TOKEN, clock, url)
session = account.client._client._session
send = session.send
def killing(request, **named):
    strikes = request.method == method and request.path_url.split("?")[0].endswith(path)
    answer = None if strikes and when == "before" else send(request, **named)
    if strikes:
        os.kill(os.getpid(), signal.SIGKILL)
    return answer
session.send = killing
Builder(account, clock, lambda _: time.sleep(0.05)).make(ORDER)
"""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/servers"), ("GET", "/servers"), ("POST", "/create_image"), ("DELETE", "")]
)
def test_a_process_that_is_killed_leaves_nothing_that_the_next_does_not_delete(
    place: Hetzner, method: str, path: str, when: str
) -> None:
    root = Path(__file__).parents[3]
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, f"{place.url}/v1", method, path, when],
        env={**os.environ, "PYTHONPATH": f"{root}:{root / 'runner-vm'}"},
    ) as dying:
        for _ in range(2000):
            with suppress(subprocess.TimeoutExpired):
                dying.wait(0.05)
                break
            place.pass_time(5)
            switches_off(place)
        dying.kill()
    assert dying.returncode == -signal.SIGKILL
    made(place)
    assert left(place) == (0, 1)
