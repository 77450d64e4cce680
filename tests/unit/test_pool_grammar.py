"""Policy files that are nearly right: each is taken as it stands, or refused with one sentence for each problem."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from workers.bootstrap import pool_fields as fields
from workers.bootstrap.pools import Wrong, policy_of
from workers.domain.labels import CPU_MAX
from workers.domain.pools import Policy
from workers.settings import ControlSettings

PATH: Final = Path("pools.toml")
DIGEST: Final = "sha256:" + "0" * 64
WHOLE: Final = f"""# who may have what
[[packages]]
image = "debian-12"
digest = "{DIGEST}"
vcpus = 1
memory_mib = 1024
disk_mib = 4096
architecture = "x86_64"
acceleration = "tcg"
runner_released = 2026-11-01

[[pools]]
name = "ci"
defaults = "cpu=1/network=nat"
keys = ["cpu", "ram"]
images = ["debian-12"]
package = "debian-12"
network = "nat"
cpu_max = 4
ram_max = 8
minutes_max = 120
repositories = ["octo-org/*"]
runners_per_repository = 5
forks = false
register = "organization"
runner_group = "GPU builders"
providers = ["local", "aws"]
zones = ["eu-central-1a"]
market = "spot-then-on-demand"
min_ready = 1
time_zone = "Europe/Berlin"
budget = {{ per_day = 20.5, currency = "EUR" }}

[[pools.schedules]]
when = "mon-fri 08:00-18:00"
time_zone = "UTC"
min_ready = 1
runners_per_repository = 7
"""
LINES: Final = WHOLE.splitlines()
DEFAULTS: Final = next(number for number, line in enumerate(LINES) if line.startswith("defaults = "))
ASSIGNED: Final = [number for number, line in enumerate(LINES) if " = " in line]
# What a sentence may end with: a word, a quote or what closes one.
END: Final = re.compile(r"[\w'\")\]}/]$")


def judged(text: str | bytes) -> Policy | list[str]:
    """Return the policy, or the sentences about the file."""
    content = text.encode(errors="replace") if isinstance(text, str) else text
    try:
        return policy_of(PATH, content, ControlSettings(package=DIGEST, host_price=0.5, currency="EUR"))
    except Wrong as error:
        refused = error
    lines = content.count(b"\n") + 1
    told = [problem.told(PATH) for problem in refused.problems]
    assert str(refused) == told[0]
    for problem, sentence in zip(refused.problems, told, strict=True):
        assert 1 <= problem.line <= lines
        assert sentence.isprintable(), "one line"
        assert END.search(sentence), sentence
        assert len(sentence) < 500, "nobody reads a page of what was wrong"
    return told


def test_the_whole_file_is_right() -> None:
    assert isinstance(judged(WHOLE), Policy)
    written = {match[1] for match in re.finditer(r"^(\w+) = ", WHOLE.partition("[[pools]]")[2], re.MULTILINE)}
    known = {one.alias or name for name, one in fields.Pool.model_fields.items()} - {"schedules"}
    assert written - {"when"} == known, "each field is replaced once"


@given(st.text(max_size=120) | st.binary(max_size=120) | st.lists(st.sampled_from(LINES)).map("\n".join))
def test_any_content_is_a_policy_or_sentences(content: str | bytes) -> None:
    judged(content)


@given(drawn=st.data())
@settings(max_examples=200)
def test_a_mangled_line_is_taken_or_told(drawn: st.DataObject) -> None:
    number = drawn.draw(st.integers(0, len(LINES) - 1))
    line = LINES[number]
    place = drawn.draw(st.integers(0, len(line)))
    sign = drawn.draw(st.sampled_from(list("\"'[]{}=#.,\\\t\r\x00\x7f\u2028\ufeff")) | st.characters(codec="utf-8"))
    odd = drawn.draw(
        st.sampled_from(["", line + "\n" + line, line[:place], line[place:], line[:place] + sign + line[place:]])
    )
    judged("\n".join([*LINES[:number], odd, *LINES[number + 1 :]]))


quoted = st.text(st.characters(codec="utf-8"), max_size=12).map(json.dumps)
numbers = st.integers(-(2**70), 2**70).map(str) | st.floats().map(repr) | st.integers(3571, 6000).map("0x{:f<1}".format)
huge = st.sampled_from(["0x" + "f" * 4000, "1" * 5000, "1e99999", "[" * 400 + "]" * 400, '"' + "x" * 3000 + '"'])
others = st.sampled_from(
    ["true", "nan", "2026-11-01", "08:00:00", "1979-05-27T07:32:00Z", "''", '"a\\nb"', '"\\u2028"']
)
flat = quoted | numbers | huge | others
keys = st.sampled_from(["when", "min_ready", "per_day", '"a\\nb"', '"\\u0085"', "x.y"])
values = (
    flat
    | st.lists(flat, max_size=3).map(lambda found: f"[{', '.join(found)}]")
    | st.tuples(keys, flat).map(lambda pair: f"{{{pair[0]} = {pair[1]}}}")
)


@given(st.sampled_from(ASSIGNED), values)
@example(next(number for number in ASSIGNED if LINES[number].startswith("vcpus")), "2")
@settings(max_examples=200)
def test_a_field_that_holds_something_else_is_taken_or_told_on_its_line(number: int, value: str) -> None:
    key = LINES[number].partition(" = ")[0]
    told = judged("\n".join([*LINES[:number], f"{key} = {value}", *LINES[number + 1 :]]))
    if isinstance(told, list) and key in {"vcpus", "forks", "market", "architecture"}:
        # A number of processors may be right by itself; then no package is what the pool has by default.
        place = DEFAULTS if key == "vcpus" and is_number_of_vcpus(value) else number
        assert any(sentence.startswith(f"{PATH}:{place + 1}: ") for sentence in told)


def is_number_of_vcpus(value: str) -> bool:
    try:
        return 1 <= int(value, 0) <= CPU_MAX
    except ValueError:
        return False


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=80), st.sampled_from(ASSIGNED))
def test_a_key_that_is_none_is_named_on_its_line(key: str, number: int) -> None:
    told = judged("\n".join([*LINES[: number + 1], f"{json.dumps(key)} = 1", *LINES[number + 1 :]]))
    if isinstance(told, Policy):
        return
    assert any(sentence.startswith(f"{PATH}:{number + 2}: ") for sentence in told)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[[pools]]\nname = "a"\n"b\\nc" = 1', "3: pools.0.'b\\nc': Extra inputs are not permitted, not 1"),
        (
            f'[[pools]]\nname = "a"\n\ncpu_max = {"1" * 5000}',
            "4: not TOML that anybody could read: a number is too long",
        ),
        (f'[[pools]]\nname = "a"\ncpu_max = 0x{"f" * 5000}', "3: pools.0.cpu_max: Input should be less than or equal"),
        (f"[[pools]]\nname = 'a'\nx{'.x' * 3000} = 1", "3: pools.0.x: Extra inputs are not permitted, not what stands"),
        ("'(at line 9, column 1)' = 1\n[[pools]]\n[pools]", "3: not TOML: Cannot"),
        ("[[pools]]\n\n'x (at line 9, column 1)' = {a = 1, a = 2}", "3: not TOML: Duplicate inline table key 'a'"),
        ("x = {'a (at line 9, column 1)' = 1, 'a (at line 9, column 1)' = 2}", "1: not TOML: Duplicate inline table"),
        ("\n[[pools]]", "2: pools.0.name: Field required; see docs/pools.md"),
    ],
)
def test_what_no_draw_finds_often_is_told_too(text: str, told: str) -> None:
    found = judged(text)
    assert isinstance(found, list)
    assert any(sentence.startswith(f"{PATH}:{told}") for sentence in found), found
