"""Notices are told as soon as they are seen, until the control plane has answered, and once after that."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from workers.domain.errors import BadInput, Unreachable
from workers.domain.messages import Notice, NoticeKind
from workers.domain.user_data import cloud_config
from workers.host.notices import HETZNER, INTERRUPTION, REBALANCE, MetadataService, NoticeWatcher
from workers.rehearsal.imds import Service, write_state

NOW = datetime(2026, 11, 23, 4, 0, tzinfo=UTC)
USER_DATA = {
    "control_url": "https://10.90.0.2:8443",
    "control_ca_sha256": "ab" * 32,
    "token": "spot-host-a.once",
}


class StoppedClock:
    def __init__(self, off: timedelta = timedelta()) -> None:
        self.off = off

    def now(self) -> datetime:
        return NOW + self.off


class ControlPlane:
    """Hears notices; answers only when it can be reached."""

    def __init__(self) -> None:
        self.heard: list[Notice] = []
        self.is_reachable = True

    async def hear(self, notice: Notice) -> None:
        self.heard.append(notice)
        if not self.is_reachable:
            raise Unreachable("the control plane is away")


@contextmanager
def cloud(file: Path) -> Iterator[Service]:
    service = Service(("127.0.0.1", 0), file, NOW.timestamp)
    serving = threading.Thread(target=service.serve_forever, kwargs={"poll_interval": 0.01})
    serving.start()
    try:
        yield service
    finally:
        service.shutdown()
        serving.join(10)
        service.server_close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_state(tmp_path / "metadata.json", {})
    return tmp_path / "metadata.json"


def with_service(file: Path, play: Callable[[MetadataService, Service], Awaitable[None]]) -> None:
    async def run(service: Service) -> None:
        metadata = MetadataService(f"http://127.0.0.1:{service.server_address[1]}")
        try:
            await play(metadata, service)
        finally:
            await metadata.close()

    with cloud(file) as service:
        asyncio.run(run(service))


def action(at: datetime, what: str = "terminate") -> str:
    return json.dumps({"action": what, "time": at.strftime("%Y-%m-%dT%H:%M:%SZ")})


def announce(file: Path, **bodies: str) -> None:
    write_state(
        file, {{"interruption": INTERRUPTION, "rebalance": REBALANCE}[name]: text for name, text in bodies.items()}
    )


def test_a_machine_reads_what_it_was_told(file: Path) -> None:
    write_state(file, {"latest/user-data": cloud_config(USER_DATA), "latest/meta-data/local-ipv4": "10.90.0.16\n"})

    async def play(metadata: MetadataService, _: Service) -> None:
        told = await metadata.user_data()
        assert (told.host_id, told.control_url) == ("spot-host-a", "https://10.90.0.2:8443")
        assert "once" not in repr(told), "the token is a secret"
        assert await metadata.local_address() == "10.90.0.16"

    with_service(file, play)


def test_a_machine_without_user_data_is_told_what_to_do(file: Path) -> None:
    async def play(metadata: MetadataService, _: Service) -> None:
        with pytest.raises(BadInput, match="launch the machine with"):
            await metadata.user_data()

    with_service(file, play)


@pytest.mark.parametrize(
    "wrong",
    ["", "#!/bin/sh", json.dumps(USER_DATA), cloud_config({**USER_DATA, "token": "nobody's"}), cloud_config({})],
)
def test_user_data_of_somebody_else_is_refused(file: Path, wrong: str) -> None:
    write_state(file, {"latest/user-data": wrong})

    async def play(metadata: MetadataService, _: Service) -> None:
        with pytest.raises(BadInput, match="latest/user-data"):
            await metadata.user_data()

    with_service(file, play)


def test_a_notice_is_told_once(file: Path) -> None:
    control = ControlPlane()

    async def play(metadata: MetadataService, _: Service) -> None:
        watcher = NoticeWatcher(metadata, control.hear, StoppedClock())
        await watcher.look()
        assert control.heard == []
        announce(file, interruption=action(NOW + timedelta(seconds=90)))
        for _round in range(3):
            await watcher.look()
        assert control.heard == [Notice(NoticeKind.INTERRUPTION, 90.0)]

    with_service(file, play)


@pytest.mark.parametrize("minutes", [-5, 5])
def test_the_clouds_clock_says_how_much_is_left_if_the_machines_is_wrong(file: Path, minutes: int) -> None:
    control = ControlPlane()

    async def play(metadata: MetadataService, _: Service) -> None:
        announce(file, interruption=action(NOW + timedelta(seconds=90)))
        await NoticeWatcher(metadata, control.hear, StoppedClock(timedelta(minutes=minutes))).look()
        assert control.heard == [Notice(NoticeKind.INTERRUPTION, 90.0)]

    with_service(file, play)


def test_a_good_clock_is_more_exact_than_the_date_of_an_answer(file: Path) -> None:
    control = ControlPlane()

    async def play(metadata: MetadataService, _: Service) -> None:
        announce(file, interruption=action(NOW + timedelta(seconds=90)))
        await NoticeWatcher(metadata, control.hear, StoppedClock(timedelta(seconds=0.75))).look()
        assert control.heard == [Notice(NoticeKind.INTERRUPTION, 89.25)]

    with_service(file, play)


def test_a_notice_is_told_again_until_it_is_answered(file: Path) -> None:
    control = ControlPlane()

    async def play(metadata: MetadataService, _: Service) -> None:
        watcher = NoticeWatcher(metadata, control.hear, StoppedClock())
        announce(file, interruption=action(NOW + timedelta(seconds=90)))
        control.is_reachable = False
        await watcher.look()
        await watcher.look()
        control.is_reachable = True
        await watcher.look()
        await watcher.look()
        assert len(control.heard) == 3

    with_service(file, play)


def test_a_changed_deadline_is_told_anew(file: Path) -> None:
    control = ControlPlane()

    async def play(metadata: MetadataService, _: Service) -> None:
        watcher = NoticeWatcher(metadata, control.hear, StoppedClock())
        for seconds in (90, 30):
            announce(file, interruption=action(NOW + timedelta(seconds=seconds), "stop"))
            await watcher.look()
        assert [notice.seconds_left for notice in control.heard] == [90.0, 30.0]

    with_service(file, play)


def test_a_deadline_that_has_passed_is_now(file: Path) -> None:
    control = ControlPlane()

    async def play(metadata: MetadataService, _: Service) -> None:
        announce(file, interruption=action(NOW - timedelta(seconds=5)))
        await NoticeWatcher(metadata, control.hear, StoppedClock()).look()
        assert control.heard == [Notice(NoticeKind.INTERRUPTION, 0.0)]

    with_service(file, play)


def test_a_broken_notice_keeps_the_other_from_nobody(file: Path) -> None:
    control = ControlPlane()

    async def play(metadata: MetadataService, _: Service) -> None:
        announce(file, interruption="<html>", rebalance=json.dumps({"noticeTime": "2026-11-23T04:00:10Z"}))
        await NoticeWatcher(metadata, control.hear, StoppedClock()).look()
        assert control.heard == [Notice(NoticeKind.REBALANCE, 10.0)]

    with_service(file, play)


def test_a_service_that_forgot_our_token_is_asked_for_another(file: Path) -> None:
    async def play(metadata: MetadataService, service: Service) -> None:
        assert await metadata.interruption_at() is None
        service.tokens = type(service.tokens)()
        announce(file, interruption=action(NOW))
        assert await metadata.interruption_at() == NOW

    with_service(file, play)


def test_a_service_that_is_away_is_looked_for_in_the_next_round() -> None:
    control = ControlPlane()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    async def run() -> None:
        metadata = MetadataService(f"http://127.0.0.1:{port}")
        await NoticeWatcher(metadata, control.hear, StoppedClock()).look()
        with pytest.raises(Unreachable, match="did not answer"):
            await metadata.interruption_at()
        await metadata.close()

    asyncio.run(run())
    assert control.heard == []


# ---------------------------------------------------------------- a service without tokens and notices


def test_a_server_at_hetzner_learns_the_same_without_a_token_and_hears_of_no_notice() -> None:
    here = {"/hetzner/v1/userdata": cloud_config(USER_DATA), "/hetzner/v1/metadata/public-ipv4": "198.18.0.7\n"}
    asked: list[tuple[str, str]] = []

    def answered(request: httpx.Request) -> httpx.Response:
        asked.append((request.method, request.url.path))
        text = here.get(request.url.path)
        return httpx.Response(404) if text is None else httpx.Response(200, text=text)

    async def play(metadata: MetadataService) -> None:
        assert (await metadata.user_data()).host_id == "spot-host-a"
        assert await metadata.local_address() == await metadata.public_address() == "198.18.0.7"
        assert (await metadata.interruption_at(), await metadata.rebalance_at()) == (None, None)
        del here["/hetzner/v1/userdata"]
        with pytest.raises(BadInput, match="has no hetzner/v1/userdata"):
            await metadata.user_data()
        await metadata.close()

    metadata = MetadataService("http://169.254.169.254", HETZNER)
    metadata._client = httpx.AsyncClient(base_url="http://metadata", transport=httpx.MockTransport(answered))
    asyncio.run(play(metadata))
    assert {path for _, path in asked} == set(here) | {"/hetzner/v1/userdata"}
    assert {method for method, _ in asked} == {"GET"}
