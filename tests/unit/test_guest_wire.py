from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from guest_agent.wire import (
    DEPTH_MAX,
    FRAME_MAX,
    Frames,
    Malformed,
    Request,
    Response,
    decode,
    encode,
)

NAMES = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=64)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=5), below, max_size=3),
    max_leaves=6,
).filter(lambda value: _depth(value) <= DEPTH_MAX - 4)
MESSAGES = st.builds(Request, NAMES, NAMES, st.lists(VALUES, max_size=3).map(tuple)) | st.builds(
    Response, NAMES, VALUES, st.text(max_size=30)
)


def _depth(value: object) -> int:
    below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max((_depth(part) for part in below), default=0)


@given(MESSAGES)
def test_what_is_encoded_is_decoded_to_the_same(message: Request | Response) -> None:
    (line,) = Frames().feed(encode(message))

    assert decode(line) == message


@given(st.lists(MESSAGES, max_size=4), st.integers(1, 40))
def test_frames_do_not_depend_on_how_the_stream_was_cut(messages: list[Request | Response], step: int) -> None:
    stream = b"".join(encode(message) for message in messages)
    frames = Frames()

    lines = [line for at in range(0, len(stream), step) for line in frames.feed(stream[at : at + step])]

    assert [decode(line) for line in lines] == messages


@given(st.binary(max_size=300))
@example(b'{"request": {"call": "1", "function": "f", "args": []}, "response": {}}')
@example(b'{"request": null, "response": {"call": "1", "value": NaN, "err": ""}}')
@example(b"[" * 100_000)
@example(b'{"request": null, "response": {"call": "1", "value": 1' + b"0" * 5000 + b', "err": ""}}')
def test_a_hostile_line_is_malformed_or_a_message_and_nothing_else(line: bytes) -> None:
    try:
        message = decode(line)
    except Malformed:
        return
    assert isinstance(message, Request | Response)


@given(st.lists(st.binary(max_size=200), max_size=20))
def test_a_hostile_stream_is_cut_into_lines_without_breaks(chunks: list[bytes]) -> None:
    frames = Frames()

    lines = [line for chunk in chunks for line in frames.feed(chunk)]

    assert all(line and b"\n" not in line for line in lines)


def test_a_line_that_is_too_long_is_dropped_and_the_next_one_is_read() -> None:
    frames = Frames()
    kept = []
    for _ in range(5):
        kept += list(frames.feed(b"x" * FRAME_MAX))
        assert len(frames._rest) <= FRAME_MAX + 1
    kept += list(frames.feed(b"\n" + encode(Request("1", "RunnerStatus"))))

    assert [decode(line) for line in kept] == [Request("1", "RunnerStatus")]


def test_a_frame_follows_half_a_frame_that_a_lost_connection_left() -> None:
    frames = Frames()
    whole = encode(Request("1", "RunnerStatus"))

    lines = [*frames.feed(whole[:20]), *frames.feed(encode(Request("2", "RunnerStatus")))]

    with pytest.raises(Malformed):
        decode(lines[0])
    assert decode(lines[1]) == Request("2", "RunnerStatus")


def test_a_value_that_is_too_deep_is_refused() -> None:
    value: list[Any] = []
    for _ in range(DEPTH_MAX):
        value = [value]
    frame = json.dumps({"request": None, "response": {"call": "1", "value": value, "err": ""}}).encode()

    with pytest.raises(Malformed, match="deeper"):
        decode(frame)


def test_a_message_that_is_too_large_is_not_sent() -> None:
    with pytest.raises(Malformed, match="larger"):
        encode(Request("1", "StartRunner", ("x" * FRAME_MAX,)))


def test_a_request_does_not_show_its_arguments() -> None:
    assert "secret" not in repr(Request("1", "StartRunner", ("secret",)))


def test_an_error_is_cut_to_a_length_that_a_log_line_bears() -> None:
    (line,) = Frames().feed(encode(Response("1", err="x" * 5000)))
    message = decode(line)

    assert isinstance(message, Response)
    assert len(message.err) == 1000
