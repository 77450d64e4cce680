"""What a job asks for with `runs-on:`, as a grammar; docs/labels.md has it in EBNF.

    labels ─▶ options ─▶ a wish, and what is wrong with it        (whether it can be granted: planning/serving.py)

GitHub hands us a list of labels in no particular order and compares them without case, so this does too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from enum import StrEnum, auto
from typing import Final

from workers.domain.architecture import Architecture
from workers.domain.overlay import GuestNetwork

SERVED: Final = "spot-runner"
# GitHub gives these to every self-hosted Linux runner by itself.
IMPLIED: Final = frozenset({"self-hosted", "linux", "x64"})
# It gives this one to those on such processors, so whoever writes it asks for them.
IMPLIED_ARM64: Final = "arm64"
# The largest machines that clouds rent; more is a slip of the finger.
CPU_MAX: Final = 1024
RAM_MAX_GIB: Final = 24576
# GitHub ends a job on a self-hosted runner after five days.
MINUTES_MAX: Final = 5 * 24 * 60
# What people write who know other services.
ALIASES: Final = {"memory": "ram", "mem": "ram", "cores": "cpu", "vcpus": "cpu", "timeout-minutes": "max-minutes"}
SHOWN_MAX: Final = 60

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_RANGE: Final = re.compile(r"([0-9]{1,6})(?:\+([0-9]{1,6}))?")
_DIGITS: Final = re.compile(r"[0-9]{1,6}")
_RUN: Final = re.compile(r"[0-9]{1,20}(?:-[0-9]{1,20}){0,3}")


class Interrupt(StrEnum):
    """What may become of a job whose host is taken back."""

    MOVE = auto()
    """It is moved, if there is any way."""
    RERUN = auto()
    """It may be stopped and run again, where that costs less than moving it."""


class Again(StrEnum):
    """Whether a job that was lost for all that is run again."""

    AUTO = auto()
    """If it holds no deployment: that may have done something already which must not be done twice."""
    ALWAYS = auto()
    NEVER = auto()


@dataclass(frozen=True)
class Range:
    """From `low` to `high`, both included."""

    low: int
    high: int

    def __contains__(self, number: float) -> bool:
        return self.low <= number <= self.high

    def __str__(self) -> str:
        return str(self.low) if self.low == self.high else f"{self.low}+{self.high}"


Value = Range | GuestNetwork | Interrupt | Again | Architecture | str | int


@dataclass(frozen=True)
class Wish:
    """What labels ask for; None: whatever the pool gives."""

    cpu: Range | None = None
    ram: Range | None = None
    """GiB."""
    image: str | None = None
    pool: str | None = None
    network: GuestNetwork | None = None
    interrupt: Interrupt | None = None
    max_minutes: int | None = None
    run: str | None = None
    """Asks for nothing: it makes the label unique, so that GitHub gives the runner to no other run's job."""
    rerun: Again | None = None
    arch: Architecture | None = None

    @property
    def options(self) -> dict[str, str]:
        """What is asked for, by the keys of the grammar."""
        named = {key: getattr(self, field_of(key)) for key in KEYS}
        return {key: str(value) for key, value in named.items() if value is not None}

    @property
    def label(self) -> str:
        """The one label that asks for this."""
        return "/".join([SERVED, *(f"{key}={value}" for key, value in self.options.items())])

    def over(self, other: Wish) -> Wish:
        """Return this wish, with the other's where this one asks for nothing."""
        own = {each.name: getattr(self, each.name) for each in fields(self)}
        return replace(other, **{name: value for name, value in own.items() if value is not None})

    def without(self, keys: Iterable[str]) -> Wish:
        """Return this wish without these keys."""
        return replace(self, **{field_of(key): None for key in keys})


@dataclass(frozen=True)
class Unserved:
    """Nobody here serves these labels, and why."""

    reason: str
    nearest: str | None = None
    """The label nearest to what was asked for that would be served."""
    is_ours: bool = True
    """The labels name us, so whoever wrote them waits for an answer of ours."""

    @property
    def sentence(self) -> str:
        """All of it, for the user."""
        return (
            self.reason if self.nearest is None else f"{self.reason}; the nearest that works: runs-on: {self.nearest}"
        )


@dataclass(frozen=True)
class Reading:
    """What labels ask for as far as they can be understood, and what is wrong with them, first things first."""

    wish: Wish
    problems: tuple[str, ...] = ()
    is_ours: bool = True


def field_of(key: str) -> str:
    """Return the field of a `Wish` that holds a key's value."""
    return key.replace("-", "_")


def _range(text: str, most: int) -> Range | None:
    found = _RANGE.fullmatch(text)
    if found is None:
        return None
    whole = Range(int(found[1]), int(found[2] or found[1]))
    return whole if 1 <= whole.low <= whole.high <= most else None


def _cpu(text: str) -> Range | None:
    return _range(text, CPU_MAX)


def _ram(text: str) -> Range | None:
    return _range(text, RAM_MAX_GIB)


def _minutes(text: str) -> int | None:
    found = _range(text, MINUTES_MAX)
    return found.low if found is not None and "+" not in text else None


def _name(text: str) -> str | None:
    return text if _NAME.fullmatch(text) else None


def _run(text: str) -> str | None:
    return text if _RUN.fullmatch(text) else None


def _network(text: str) -> GuestNetwork | None:
    return next((each for each in GuestNetwork if each == text), None)


def _interrupt(text: str) -> Interrupt | None:
    return next((each for each in Interrupt if each == text), None)


def _again(text: str) -> Again | None:
    return next((each for each in Again if each == text), None)


def _architecture(text: str) -> Architecture | None:
    return next((each for each in Architecture if each == text), None)


_READERS: Final = {
    "cpu": _cpu,
    "ram": _ram,
    "image": _name,
    "pool": _name,
    "network": _network,
    "interrupt": _interrupt,
    "max-minutes": _minutes,
    "run": _run,
    "rerun": _again,
    "arch": _architecture,
}
# Keys whose values are words of ours.
_WORDS: Final[Mapping[str, type[StrEnum]]] = {
    "network": GuestNetwork,
    "interrupt": Interrupt,
    "rerun": Again,
    "arch": Architecture,
}
KEYS: Final = tuple(_READERS)
# Which pool and which run: every pool lets jobs say so.
ALWAYS: Final = frozenset({"pool", "run"})
_FORMS: Final[Mapping[str, str]] = {
    "cpu": f"cpu=N or cpu=N+M with whole numbers of CPUs from 1 to {CPU_MAX}, the smaller one first",
    "ram": f"ram=N or ram=N+M with whole GiB from 1 to {RAM_MAX_GIB}, the smaller one first",
    "image": "image=NAME with the name of an image: letters, digits, dots, hyphens and underscores, 63 at most",
    "pool": "pool=NAME with the name of a pool: letters, digits, dots, hyphens and underscores, 63 at most",
    "network": f"network={' or network='.join(GuestNetwork)}",
    "interrupt": f"interrupt={' or interrupt='.join(Interrupt)}",
    "max-minutes": f"max-minutes=N with whole minutes from 1 to {MINUTES_MAX}",
    "run": "run=${{ github.run_id }}, or up to four such numbers with hyphens between them",
    "rerun": f"rerun={' or rerun='.join(Again)}",
    "arch": f"arch={' or arch='.join(Architecture)}",
}


def reading(labels: Iterable[str]) -> Reading:
    """Read what GitHub says that a job asks for."""
    asked = tuple(dict.fromkeys(label.lower() for label in labels))
    if not any(_names_us(label) for label in asked):
        text = f"runs-on: {_shown(', '.join(asked))} does not name {SERVED}; write runs-on: {SERVED}"
        return Reading(Wish(), (text,), is_ours=False)
    found: dict[str, Value] = {}
    problems = tuple(problem for label in asked for text in _options(label) for problem in _take(text, label, found))
    return Reading(Wish(**{field_of(key): value for key, value in found.items()}), problems)  # type: ignore[arg-type]  # its own reader made each


def read_options(text: str) -> Reading:
    """Read options alone, as `cpu=4/network=nat`; nothing asks for nothing."""
    return reading([f"{SERVED}/{text}" if text else SERVED])


def _names_us(label: str) -> bool:
    return label == SERVED or label.startswith(f"{SERVED}/")


def _options(label: str) -> Iterator[str]:
    """Yield the options in one label."""
    if _names_us(label):
        yield from label.split("/")[1:]
    elif label == IMPLIED_ARM64:
        yield f"arch={label}"
    elif label not in IMPLIED:
        yield label


def _take(option: str, label: str, found: dict[str, Value]) -> Iterator[str]:
    """Put one option where it belongs, mended if it can be, and yield what is wrong with it."""
    place = f"runs-on: {_shown(label)}: "
    given, is_set, text = option.partition("=")
    key = _key_meant(given)
    if key is None:
        known = ", ".join(KEYS)
        yield f"{place}{_shown(option)} is none of the options ({known}); remove it or write one of them as KEY=VALUE"
        return
    value = _READERS[key](text)
    if given != key:
        yield f"{place}{_shown(given)} is no option; write {key}=VALUE"
    elif value is None:
        problem = f"{_shown(text)} is no value for {key}" if is_set else f"{key} has no value"
        yield f"{place}{problem}; write {_FORMS[key]}"
    elif key in found:
        yield f"{place}{key} is asked for twice, {found[key]} and {value}; name it once"
    value = _meant(key, text) if value is None else value
    if value is not None:
        found.setdefault(key, value)


def _key_meant(given: str) -> str | None:
    close = get_close_matches(given, KEYS, 1, 0.75)
    return ALIASES.get(given) or next(iter(close), None)


def _meant(key: str, text: str) -> Value | None:
    """Return what a value that is none was probably meant to be."""
    if key in _WORDS:
        return next((_READERS[key](close) for close in get_close_matches(text, list(_WORDS[key]), 1)), None)
    most = {"cpu": CPU_MAX, "ram": RAM_MAX_GIB, "max-minutes": MINUTES_MAX}.get(key)
    if most is None:
        return None
    numbers = sorted(min(max(int(digits), 1), most) for digits in _DIGITS.findall(text)[:2])
    return _READERS[key]("+".join(map(str, numbers[:1] if key == "max-minutes" else numbers)))


def _shown(text: str) -> str:
    """Return foreign text as it may stand in a sentence of ours."""
    return repr(text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}…")
