"""Lines of a TOML text: those on which a text that we wrote ourselves has put each value."""

from __future__ import annotations

import json
import tomllib

from hypothesis import given
from hypothesis import strategies as st

from workers.bootstrap.toml_lines import Place, line_at, lines_of

PAGE = '''# a comment with [[pools]]
title = "a # b"

[[pools]]   # the first
name = 'one'
text = """
name = "not this one"
[[pools]]
"""
list = [ 1, # one ]
  2,
  [3,
   4],
  { a = 1, "b c" = [
    5 ] } ]

[[ pools ]]
"name" = "two"
a.b = { c.d = 1 }
[[pools.schedules]]
when = '''
PAGE += "'''x\ny'''\nmin_ready = 1\n[[pools.schedules]]\nwhen = \"z\"\n[pools.budget]\nper_day = 1e3\n"


def test_every_value_of_a_page_has_its_line() -> None:
    tomllib.loads(PAGE)
    lines = lines_of(PAGE)
    expected: dict[Place, int] = {
        ("title",): 2,
        ("pools",): 4,
        ("pools", 0): 4,
        ("pools", 0, "name"): 5,
        ("pools", 0, "text"): 6,
        ("pools", 0, "list"): 10,
        ("pools", 0, "list", 0): 10,
        ("pools", 0, "list", 1): 11,
        ("pools", 0, "list", 2, 1): 13,
        ("pools", 0, "list", 3, "a"): 14,
        ("pools", 0, "list", 3, "b c", 0): 15,
        ("pools", 1): 17,
        ("pools", 1, "name"): 18,
        ("pools", 1, "a", "b"): 19,
        ("pools", 1, "a", "b", "c", "d"): 19,
        ("pools", 1, "schedules", 0, "when"): 21,
        ("pools", 1, "schedules", 0, "min_ready"): 23,
        ("pools", 1, "schedules", 1): 24,
        ("pools", 1, "schedules", 1, "when"): 25,
        ("pools", 1, "budget", "per_day"): 27,
    }
    assert {place: lines[place] for place in expected} == expected


def test_what_is_not_there_is_where_it_would_be() -> None:
    lines = lines_of(PAGE)
    assert line_at(lines, ("pools", 1, "schedules", 1, "min_ready")) == 24
    assert line_at(lines, ("pools", 1, "forks")) == 17
    assert line_at(lines, ("packages",)) == 1
    assert line_at(lines, ()) == 1


names = st.from_regex(r"[a-z_][a-z0-9_-]{0,8}", fullmatch=True)
texts = st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=12)
atoms = st.integers(-(2**62), 2**62) | st.booleans() | texts | st.floats(allow_nan=False)
values = st.recursive(atoms, lambda inner: st.lists(inner, max_size=3), max_leaves=5)
tables = st.lists(st.dictionaries(names, values, max_size=4), max_size=4)
gaps = st.sampled_from(["", "\n", "# [[x]] = [\n", "\n\n  # '\n", "\t"])


def written(value: object, gap: str) -> str:
    """Write a value as TOML; between elements of a list there may be lines and comments."""
    if isinstance(value, list):
        return "[" + "".join(f"{gap}{written(one, gap)}{gap}," for one in value) + gap + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


@given(tables, gaps)
def test_every_key_of_any_text_has_the_line_on_which_it_was_written(tables: list[dict[str, object]], gap: str) -> None:
    text, expected = "", dict[Place, int]()
    for number, table in enumerate(tables):
        text += gap if gap.endswith("\n") else ""
        expected["pools", number] = text.count("\n") + 1
        text += "[[pools]]\n"
        for key, value in table.items():
            text += gap if gap.endswith("\n") else ""
            expected["pools", number, key] = text.count("\n") + 1
            text += f"{key} = {written(value, gap)}\n"
    assert tomllib.loads(text).get("pools", []) == tables
    lines = lines_of(text)
    assert {place: lines[place] for place in expected} == expected


@given(st.text(max_size=80))
def test_it_ends_whatever_it_is_given(text: str) -> None:
    """Only texts that are TOML are handed to it, but a reader that never ends would be worse than a wrong line."""
    lines_of(text)
