"""Host and guest at the two ends of a real socket; where the guest is hostile, the test plays it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from guest_agent import wire
from tests.unit.agent_process import running_agent
from tests.unit.played_guest import Guest, answering, next_request, with_value
from workers.domain.errors import Bug, Refused, Unreachable
from workers.host.guest import STRAYS_MAX, GuestChannel

LIMIT_S = 20.0


@asynccontextmanager
async def _talking_to(path: Path, guest: Guest) -> AsyncIterator[GuestChannel]:
    ended = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await guest(reader, writer)
            await reader.read()
        except (EOFError, OSError):
            pass  # the host has gone
        finally:
            writer.transport.abort()
            ended.set()

    async with asyncio.timeout(2 * LIMIT_S), await asyncio.start_unix_server(talk, path):
        channel = await GuestChannel.connect(path, LIMIT_S)
        try:
            yield channel
        finally:
            await channel.close()
            await ended.wait()


@asynccontextmanager
async def _agent(path: Path, *command: str) -> AsyncIterator[GuestChannel]:
    with running_agent(path, *command):
        channel = await GuestChannel.connect(path, LIMIT_S)
        try:
            yield channel
        finally:
            await channel.close()


async def _refusal(path: Path, guest: Guest, function: str = "RunnerStatus", limit_s: float = LIMIT_S) -> str:
    async with _talking_to(path, guest) as channel:
        with pytest.raises(Unreachable) as refused:
            await channel.call(function, limit_s=limit_s)
    return str(refused.value)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "agent"


# ---------------------------------------------------------------- the real agent


def test_a_runner_waits_runs_and_ends(path: Path) -> None:
    async def story() -> None:
        script = 'until [ -e go ]; do sleep 0.02; done; echo "$HOME"; exit 3'
        async with _agent(path, "sh", "-c", script) as guest:
            assert await guest.call("RunnerStatus", limit_s=LIMIT_S) == {"state": "waiting", "exit_code": None}
            assert await guest.call("StartRunner", "secret", limit_s=LIMIT_S) is None
            assert await guest.call("StartRunner", "secret", limit_s=LIMIT_S) is None
            assert await guest.call("RunnerStatus", limit_s=LIMIT_S) == {"state": "running", "exit_code": None}
            (path.parent / "go").touch()
            assert await _ended(guest) == {"state": "ended", "exit_code": 3}
        assert (path.parent / "agent.log").read_text().count(str(path.parent)) == 1

    asyncio.run(story())


def test_the_secret_is_in_the_runner_s_environment_and_nowhere_else(path: Path) -> None:
    async def story() -> None:
        script = 'tr "\\0" " " < /proc/$$/cmdline; echo; test "$ACTIONS_RUNNER_INPUT_JITCONFIG" = s3cret'
        async with _agent(path, "sh", "-c", script) as guest:
            await guest.call("StartRunner", "s3cret", limit_s=LIMIT_S)
            assert await _ended(guest) == {"state": "ended", "exit_code": 0}
        files = [file for file in path.parent.rglob("*") if file.is_file()]
        assert files
        # The script itself compares with the secret, so its own argument list, printed, holds it exactly once.
        assert sum(file.read_bytes().count(b"s3cret") for file in files) == 1

    asyncio.run(story())


def test_a_program_that_cannot_be_started_is_told_without_its_secret(path: Path) -> None:
    async def story() -> None:
        async with _agent(path, "/no/such/program") as guest:
            with pytest.raises(Refused, match="StartRunner: FileNotFoundError") as refused:
                await guest.call("StartRunner", "s3cret", limit_s=LIMIT_S)
            assert "s3cret" not in str(refused.value)
            status = await guest.call("RunnerStatus", limit_s=LIMIT_S)
            assert status == {"state": "ended", "exit_code": None}

    asyncio.run(story())


def test_what_the_agent_cannot_do_it_refuses_in_a_sentence(path: Path) -> None:
    async def story() -> None:
        async with _agent(path) as guest:
            with pytest.raises(Refused, match="neither restored nor unparked"):
                await guest.call("AfterResume", "bored", _identity(), limit_s=LIMIT_S)
            with pytest.raises(Refused, match="TypeError"):
                await guest.call("RunnerStatus", "what for", limit_s=LIMIT_S)
            await guest.call("Placed", {"runner_id": "r", "host_id": "h", "moves": 1}, limit_s=LIMIT_S)

    asyncio.run(story())


def test_what_the_job_asks_for_comes_with_the_runner_s_status(path: Path) -> None:
    async def story() -> None:
        with_hold = {"state": "running", "exit_code": None, "hold": {"number": 2, "seconds": 60.0}}
        async with _talking_to(path, with_value(with_hold)) as guest:
            assert await guest.call("RunnerStatus", limit_s=LIMIT_S) == with_hold

    asyncio.run(story())


@pytest.mark.parametrize(
    "hold",
    [
        {"number": 0, "seconds": 60.0},
        {"number": 1 << 31, "seconds": 60.0},
        {"number": 1, "seconds": -1.0},
        {"number": 1, "seconds": 1e7},
        {"number": 1, "seconds": "60"},
        {"number": 1},
        {"number": 1, "seconds": 60.0, "until": 0},
        None,
    ],
)
def test_a_wish_out_of_all_bounds_is_no_answer(path: Path, hold: object) -> None:
    status = {"state": "running", "exit_code": None, "hold": hold}
    assert "something else" in asyncio.run(_refusal(path, with_value(status)))


def test_garbage_before_a_call_does_not_disturb_the_agent(path: Path) -> None:
    async def story() -> None:
        async with _agent(path) as guest:
            guest._writer.write(b'{"request": {"call": "1", "fun\n\xff\xfe\n[[[[\n{"request": null')
            assert (await guest.call("RunnerStatus", limit_s=LIMIT_S))["state"] == "waiting"

    asyncio.run(story())


async def _ended(guest: GuestChannel) -> dict[str, Any]:
    for _ in range(1000):
        status = await guest.call("RunnerStatus", limit_s=LIMIT_S)
        if status["state"] == "ended":
            return dict(status)
        await asyncio.sleep(0.02)
    raise AssertionError("the runner does not end")


def _identity() -> dict[str, object]:
    names = ("seed", "now", "machine_id", "hostname", "mac", "ip", "prefix_length", "gateway", "gateway_mac", "mtu")
    return dict.fromkeys(names, 0)


# ---------------------------------------------------------------- a hostile guest


def test_frames_that_a_snapshot_left_on_the_way_are_dropped(path: Path) -> None:
    def stale_first(request: wire.Request) -> bytes:
        stale = wire.encode(wire.Response("of another host", {"state": "ended", "exit_code": 0}))
        half = b'{"request": null, "resp'
        own = wire.encode(wire.Response(request.call, {"state": "waiting", "exit_code": None}))
        return stale + wire.encode(request) + half + own

    async def story() -> None:
        async with _talking_to(path, answering(stale_first)) as guest:
            assert (await guest.call("RunnerStatus", limit_s=LIMIT_S))["state"] == "waiting"

    asyncio.run(story())


def test_an_answer_that_comes_after_its_limit_is_not_taken_for_the_next_one(path: Path) -> None:
    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, second = await next_request(reader), await next_request(reader)
        for request, state in ((first, "ended"), (second, "running")):
            writer.write(wire.encode(wire.Response(request.call, {"state": state, "exit_code": None})))

    async def story() -> None:
        async with _talking_to(path, slow) as guest:
            with pytest.raises(Unreachable, match=r"within 0\.05 s"):
                await guest.call("RunnerStatus", limit_s=0.05)
            assert (await guest.call("RunnerStatus", limit_s=LIMIT_S))["state"] == "running"

    asyncio.run(story())


@pytest.mark.parametrize(
    ("function", "value"),
    [
        ("RunnerStatus", None),
        ("RunnerStatus", {"state": "flying", "exit_code": None}),
        ("RunnerStatus", {"state": "ended", "exit_code": "0"}),
        ("RunnerStatus", {"state": "ended", "exit_code": 0, "and": "more"}),
        ("RunnerStatus", {"state": "ended"}),
        ("AfterResume", {"clock_step_s": "1"}),
        ("AfterResume", []),
        ("StartRunner", {}),
        ("BeforeSuspend", "done"),
    ],
)
def test_a_value_that_the_protocol_does_not_know_is_no_answer(path: Path, function: str, value: object) -> None:
    assert f"answered {function} with something else" in asyncio.run(_refusal(path, with_value(value), function))


@pytest.mark.parametrize(
    "flood",
    [
        wire.encode(wire.Response("another", None)) * (STRAYS_MAX + 1),
        b"\n".join(b"garbage" for _ in range(STRAYS_MAX + 2)),
        b"x" * (5 * wire.FRAME_MAX),
        b"\n" * (5 * wire.FRAME_MAX),
        b"[" * (2 * wire.FRAME_MAX) + b"\n" + b"[" * (3 * wire.FRAME_MAX),
    ],
    ids=["stale frames", "garbage lines", "one endless line", "empty lines", "deep nesting"],
)
def test_a_guest_that_floods_is_given_up_within_one_call(path: Path, flood: bytes) -> None:
    assert "nobody asked for" in asyncio.run(_refusal(path, answering(lambda _: flood)))


def test_a_guest_that_talks_while_nobody_asks_is_not_read(path: Path) -> None:
    """What it says waits in the socket, so the guest is the one that stands still."""
    sent = 0

    async def talker(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()
            sent += 65536

    async def story() -> None:
        async with _talking_to(path, talker):
            before = -1
            async with asyncio.timeout(LIMIT_S):
                while sent != before:
                    before = sent
                    await asyncio.sleep(0.1)
            assert sent < 8 * wire.FRAME_MAX

    asyncio.run(story())


def test_a_guest_that_says_nothing_is_unreachable_after_the_limit(path: Path) -> None:
    assert "within 0.1 s" in asyncio.run(_refusal(path, answering(lambda _: b""), limit_s=0.1))


def test_a_guest_that_goes_away_is_unreachable(path: Path) -> None:
    async def leaver(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await next_request(reader)
        writer.close()

    assert "closed during RunnerStatus" in asyncio.run(_refusal(path, leaver))


def test_a_guest_s_words_are_made_harmless_before_anybody_repeats_them(path: Path) -> None:
    def rude(request: wire.Request) -> bytes:
        return wire.encode(wire.Response(request.call, None, "\x1b[2J\r\nspot-runner: all is well \ud800" + "x" * 900))

    async def story() -> None:
        async with _talking_to(path, answering(rude)) as guest:
            with pytest.raises(Refused) as refused:
                await guest.call("Shutdown", limit_s=LIMIT_S)
        assert str(refused.value).isprintable()
        assert len(str(refused.value)) < 300

    asyncio.run(story())


def test_a_socket_that_is_not_there_is_unreachable_and_an_unknown_function_a_bug(path: Path) -> None:
    async def story() -> None:
        with pytest.raises(Unreachable, match="does not open"):
            await GuestChannel.connect(path, LIMIT_S)
        async with _talking_to(path, with_value(None)) as guest:
            with pytest.raises(Bug, match="Dance"):
                await guest.call("Dance", limit_s=LIMIT_S)

    asyncio.run(story())


def test_arequest_on_the_wire_is_drafter_s(path: Path) -> None:
    lines: list[dict[str, Any]] = []

    async def listener(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            if line.strip():
                lines.append(json.loads(line))
                call = lines[-1]["request"]["call"]
                writer.write(
                    json.dumps({"request": None, "response": {"call": call, "value": None, "err": ""}}).encode()
                )
                writer.write(b"\n")

    async def story() -> None:
        async with _talking_to(path, listener) as guest:
            await guest.call("Placed", {"moves": 1}, limit_s=LIMIT_S)

    asyncio.run(story())
    (said,) = lines
    assert said["response"] is None
    assert said["request"] == {"call": said["request"]["call"], "function": "Placed", "args": [{"moves": 1}]}
