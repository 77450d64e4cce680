"""The grammar in docs/labels.md and the program say the same: what the EBNF derives is understood, all else is not.

docs/labels.md ─▶ rules ─▶ a regular expression for each (no rule refers to itself) ─▶ labels, and a judge of them
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.domain.labels import KEYS, reading

DOCS: Final = Path(__file__).parents[2] / "docs/labels.md"
TOKEN: Final = re.compile(
    r'\s*(?:\(\*(?P<comment>.*?)\*\)|"(?P<text>[^"]*)"|(?P<name>[a-z]+)|(?P<mark>[=,|;()\[\]{}]))', re.DOTALL
)
CLOSES: Final = {"(": ")", "[": "]", "{": "}"}


class Ebnf:
    """ISO 14977 as far as the docs use it: `,` `|` `[…]` `{…}` `(…)`, texts in quotes, comments."""

    def __init__(self, text: str) -> None:
        self.rules: dict[str, list[tuple[str, str]]] = {}
        self.comments: dict[str, list[str]] = {}
        rule, place, key = "", 0, ""
        while place < len(text.rstrip()):
            found = TOKEN.match(text, place)
            assert found is not None, f"no EBNF: {text[place : place + 40]!r}"
            place = found.end()
            kind, word = str(found.lastgroup), found[str(found.lastgroup)]
            if not rule:
                if kind == "name":
                    rule, key = word, word
                    self.rules[rule] = []
                elif kind == "comment":
                    self.comments.setdefault(key, []).append(word.strip())
            elif kind == "comment":
                self.comments.setdefault(key, []).append(word.strip())
            elif (kind, word) == ("mark", ";"):
                rule = ""
            else:
                if kind == "text" and word.endswith("="):
                    key = word
                self.rules[rule].append((kind, word))

    @cache  # noqa: B019 - one grammar for the whole run
    def pattern(self, rule: str) -> str:
        """Return the regular expression of a rule."""
        tokens = iter([*self.rules[rule][1:], ("mark", "")])
        return self._choice(tokens, "")

    def _choice(self, tokens: Iterator[tuple[str, str]], end: str) -> str:
        parts = [""]
        for kind, word in tokens:
            match kind, word:
                case "mark", mark if mark == end:
                    return f"(?:{'|'.join(parts)})"
                case "mark", "|":
                    parts.append("")
                case "mark", "(" | "[" | "{" as opened:
                    repeated = {"(": "", "[": "?", "{": "*"}[opened]
                    parts[-1] += self._choice(tokens, CLOSES[opened]) + repeated
                case "text", _:
                    parts[-1] += re.escape(word)
                case "name", _:
                    parts[-1] += self.pattern(word)
                case _:
                    assert word == ",", f"a stray {word!r}"
        raise AssertionError(f"{end!r} is missing")


GRAMMAR: Final = Ebnf(DOCS.read_text().partition("```ebnf\n")[2].partition("```")[0])
LABEL: Final = re.compile(GRAMMAR.pattern("label"))
OURS: Final = re.compile(GRAMMAR.pattern("ours"))
OPTION: Final = re.compile(GRAMMAR.pattern("option"))


def bounds(key: str) -> tuple[int, int]:
    """Return the bounds that a comment gives: `(* 1 to 1024 *)`."""
    found = next(re.search(r"(\d+) to (\d+)", comment) for comment in GRAMMAR.comments[key])
    assert found is not None
    return int(found[1]), int(found[2])


def most(key: str) -> int:
    """Return the number of digits, characters or parts that a comment allows: `(* six digits at most *)`."""
    words = {"four": 4, "six": 6, "twenty": 20, "63": 63}
    return words[next(one.split()[0] for one in GRAMMAR.comments[key] if one.endswith("at most"))]


def is_allowed(labels: Sequence[str]) -> bool:
    """Judge labels by the docs alone: the rules, and the words beside them."""
    given_labels = list(dict.fromkeys(label.lower() for label in labels))  # GitHub has each label once
    if not all(LABEL.fullmatch(label) for label in given_labels):
        return False
    if not any(OURS.fullmatch(label) for label in given_labels):
        return False
    options = [option for label in given_labels for option in options_of(label)]
    keys = [option.partition("=")[0] for option in options]
    return len(keys) == len(set(keys)) and all(is_within(*option.split("=", 1)) for option in options)


def options_of(label: str) -> list[str]:
    if OURS.fullmatch(label):
        return label.split("/")[1:]
    if label == "arm64":
        return ["arch=arm64"]
    return [label] if OPTION.fullmatch(label) else []


def is_within(key: str, value: str) -> bool:
    """Say whether a value is within the bounds that stand in comments."""
    match key:
        case "cpu" | "ram" | "max-minutes":
            numbers = value.split("+")
            low, high = bounds(f"{key}=")
            right = [int(one) for one in numbers]
            return all(len(one) <= most("number") for one in numbers) and low <= right[0] <= right[-1] <= high
        case "run":
            parts = value.split("-")
            return len(parts) <= most("run=") and all(len(one) <= most("digits") for one in parts)
        case "image" | "pool":
            return len(value) <= most("name")
        case _:
            return True


def derived(rule: str) -> st.SearchStrategy[str]:
    return st.from_regex(re.compile(GRAMMAR.pattern(rule)), fullmatch=True)


options = derived("option")
# Most of what the rules derive at random is out of bounds, or says something twice; these come from a smaller part.
sane = st.one_of(
    st.tuples(st.sampled_from(["cpu", "ram", "max-minutes"]), st.integers(1, 1024)).map(
        lambda pair: f"{pair[0]}={pair[1]}"
    ),
    st.tuples(st.sampled_from(["cpu", "ram"]), st.integers(1, 32), st.integers(32, 64)).map(
        lambda it: f"{it[0]}={it[1]}+{it[2]}"
    ),
    options.filter(lambda option: is_within(*option.split("=", 1))),
)
ours = st.lists(sane, max_size=4).map(lambda parts: "/".join(["spot-runner", *parts]))
sets = st.lists(st.one_of(ours, sane, derived("label"), derived("implied")), min_size=1, max_size=4)


def test_the_rules_are_those_that_the_program_knows() -> None:
    keys = re.findall(r'"([a-z-]+)="', DOCS.read_text().partition("```ebnf\n")[2].partition("```")[0])
    assert sorted(keys) == sorted(KEYS)
    used = {word for tokens in GRAMMAR.rules.values() for kind, word in tokens[1:] if kind == "name"}
    assert used == set(GRAMMAR.rules) - {"labels"}, "every rule is used, and every one that is used is there"


@given(st.lists(ours | sane, max_size=3), st.sampled_from(["spot-runner", "SPOT-RUNNER", "Spot-Runner/run=1"]))
def test_what_the_grammar_derives_is_understood(labels: list[str], name: str) -> None:
    asked = [*labels, name]
    found = reading(asked)
    assert (found.problems == ()) is is_allowed(asked)


@given(sets)
def test_any_set_of_labels_is_judged_alike_by_the_docs_and_the_program(labels: list[str]) -> None:
    assert (reading(labels).problems == ()) is is_allowed(labels)


def mutated(text: str, chance: random.Random) -> str:
    """Return a text with one character too many, too few, another, or a piece twice."""
    place = chance.randrange(len(text) + 1)
    other = chance.choice("0129+-=/.azAZ_ é٤\n" + text)
    cut = {
        "more": (text[:place], other, text[place:]),
        "fewer": (text[:place], text[place + 1 :]),
        "another": (text[:place], other, text[place + 1 :]),
        "twice": (text[:place], text[place:] * 8),
    }
    return "".join(cut[chance.choice(sorted(cut))])


@given(ours, st.integers(1, 3), st.randoms(use_true_random=False))
def test_what_the_grammar_does_not_derive_is_refused(label: str, times: int, chance: random.Random) -> None:
    for _ in range(times):
        label = mutated(label, chance)
    for labels in ([label], ["spot-runner", label]):
        found = reading(labels)
        assert (found.problems == ()) is is_allowed(labels), found.problems
        assert all("\n" not in problem for problem in found.problems)


WRONG: Final[Mapping[str, str]] = {
    "spot-runner/": "an option is missing",
    "spot-runner/cpu=0": "below the bounds",
    "spot-runner/cpu=1025": "above them",
    "spot-runner/cpu=0000001": "seven digits",
    "spot-runner/cpu=8+4": "the larger one first",
    "spot-runner/max-minutes=7201": "more than five days",
    "spot-runner/run=1-2-3-4-5": "five numbers",
    "spot-runner/run=123456789012345678901": "21 digits",
    f"spot-runner/pool={'x' * 64}": "64 characters",
    "spot-runner/pool=-x": "a name begins with a letter or digit",
    "spot-runner/network=none": "no such word",
    "spot-runner/cpu=1/cpu=2": "twice",
    "self-hosted": "nobody is named",
}


@pytest.mark.parametrize("label", WRONG)
def test_the_judge_refuses_what_the_docs_forbid(label: str) -> None:
    assert not is_allowed([label])
    assert reading([label]).problems
