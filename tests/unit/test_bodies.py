from __future__ import annotations

import json
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from webhook import bodies
from workers.domain.errors import BadInput
from workers.domain.host_class import HostClass
from workers.domain.messages import Heartbeat, Notice, RegistrationRequest, RunnerReport, Word
from workers.domain.names import PackageDigest, RunnerId

TEXT = st.text(max_size=20)
HEARTBEATS = st.builds(
    Heartbeat,
    host_class=st.builds(HostClass),
    packages=st.lists(TEXT.map(PackageDigest), max_size=3).map(tuple),
    runners=st.lists(st.builds(RunnerReport, runner_id=TEXT.map(RunnerId)), max_size=3).map(tuple),
)
HEARTBEAT = TypeAdapter(Heartbeat)
NOTICE = TypeAdapter(Notice)
WORD = TypeAdapter(Word)


@given(message=HEARTBEATS)
def test_what_the_other_side_writes_is_read_as_it_was(message: Heartbeat) -> None:
    assert bodies.read(HEARTBEAT, HEARTBEAT.dump_json(message)) == message


@given(message=HEARTBEATS, place=st.sampled_from(["", "host_class", "runners"]))
def test_an_unknown_field_is_refused_and_named_wherever_it_stands(message: Heartbeat, place: str) -> None:
    content = json.loads(HEARTBEAT.dump_json(message))
    inner = content[place] if place else content
    inner = (inner[0] if inner else content) if place == "runners" else inner
    inner["surplus"] = None
    with pytest.raises(BadInput, match="surplus: unknown field"):
        bodies.read(HEARTBEAT, json.dumps(content).encode())


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[]", "body"),
        (b'{"kind":"interruption"}', "seconds_left: Field required"),
        (b'{"kind":"end","seconds_left":1}', "kind"),
        (b'{"kind":"interruption","seconds_left":"60"}', "seconds_left"),
        (b'{"kind":"interruption","seconds_left":NaN}', "not JSON"),
        (b'{"kind":"interruption","seconds_left":1e999}', "seconds_left"),
        (b'{"kind":"interruption","seconds_left":1,"host_id":"another"}', "host_id: unknown field"),
    ],
)
def test_a_wrong_body_gets_one_sentence_that_names_the_field(body: bytes, sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        bodies.read(NOTICE, body)


def test_figures_may_have_any_name() -> None:
    word = Word(epoch=2, figures={"stopped_ms": 4.5, "memory_mib": 1.0}, reason="x")
    assert bodies.read(WORD, json.dumps(asdict(word)).encode()) == word


@given(body=st.binary(max_size=100))
def test_any_bytes_are_a_message_or_bad_input(body: bytes) -> None:
    with pytest.raises(BadInput):
        bodies.read(TypeAdapter(RegistrationRequest), body)
