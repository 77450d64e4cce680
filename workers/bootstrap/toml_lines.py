"""On which line of a TOML text each of its values stands; `tomllib`, which reads them, does not say.

The text must be one that `tomllib` has read: nothing is checked here a second time.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

Place = tuple[str | int, ...]
"""As pydantic tells places: `("pools", 0, "schedules", 1, "when")`."""

# More than any file of ours has; what lies deeper is told to be where its table is.
DEPTH_MAX: Final = 16

_BLANK: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_TEXT: Final = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\'',
    re.DOTALL,
)
_ATOM: Final = re.compile(r"[^,\]}#\n]+")


def lines_of(text: str) -> Mapping[Place, int]:
    """Return the line of every table, key and element, counted from 1."""
    return _Reader(text).read()


def line_at(lines: Mapping[Place, int], place: Place) -> int:
    """Return the line of a place, or of what would hold it if it were there."""
    found = (lines[place[:length]] for length in range(len(place), 0, -1) if place[:length] in lines)
    return next(found, 1)


class _Reader:
    """Reads the text once, from its begin to its end."""

    def __init__(self, text: str) -> None:
        self._text, self._at = text, 0
        self._lines: dict[Place, int] = {}
        self._counts: dict[Place, int] = {}

    def read(self) -> Mapping[Place, int]:
        table: Place = ()
        self._skip()
        while self._at < len(self._text):
            if self._text.startswith("[", self._at):
                table = self._header()
            else:
                self._pair(table)
            self._skip()
        return self._lines

    def _header(self) -> Place:
        is_array = self._take("[[")
        if not is_array:
            self._take("[")
        line, place = self._line(), Place()
        names = self._key()
        for number, name in enumerate(names, start=1):
            place = (*place, name)[:DEPTH_MAX]
            if is_array and number == len(names):
                self._counts[place] = self._counts.get(place, 0) + 1
                self._lines.setdefault(place, line)
            if place in self._counts:
                place = (*place, self._counts[place] - 1)[:DEPTH_MAX]
        self._lines[place] = line
        self._take("]]" if is_array else "]")
        return place

    def _pair(self, table: Place) -> None:
        line, place = self._line(), table
        for name in self._key():
            place = (*place, name)[:DEPTH_MAX]
            self._lines.setdefault(place, line)
        self._skip()
        self._take("=")
        self._value(place)

    def _value(self, place: Place) -> None:
        self._skip()
        if self._take("["):
            self._elements(place)
        elif self._take("{"):
            self._pairs(place)
        else:
            found = _TEXT.match(self._text, self._at) or _ATOM.match(self._text, self._at)
            self._at = found.end() if found else self._at + 1

    def _elements(self, place: Place) -> None:
        number = 0
        self._skip()
        while not self._take("]") and self._at < len(self._text):
            self._lines[*place, number] = self._line()
            self._value((*place, number))
            number += 1
            self._skip()
            self._take(",")
            self._skip()

    def _pairs(self, place: Place) -> None:
        self._skip()
        while not self._take("}") and self._at < len(self._text):
            self._pair(place)
            self._skip()
            self._take(",")
            self._skip()

    def _key(self) -> list[str]:
        """Read one key, in parts if there are dots in it."""
        names = [self._name()]
        self._skip()
        while self._take("."):
            self._skip()
            names.append(self._name())
            self._skip()
        return names

    def _name(self) -> str:
        self._skip()
        if quoted := _TEXT.match(self._text, self._at):
            self._at = quoted.end()
            return _unquoted(quoted[0])
        bare = _BARE.match(self._text, self._at)
        self._at = bare.end() if bare else self._at + 1
        return bare[0] if bare else ""

    def _skip(self) -> None:
        found = _BLANK.match(self._text, self._at)
        self._at = found.end() if found else self._at

    def _take(self, sign: str) -> bool:
        is_there = self._text.startswith(sign, self._at)
        self._at += len(sign) if is_there else 0
        return is_there

    def _line(self) -> int:
        return self._text.count("\n", 0, self._at) + 1


def _unquoted(text: str) -> str:
    """Return what a key in quotes is called."""
    if text.startswith('"') and "\\" in text:
        with suppress(tomllib.TOMLDecodeError):
            return str(tomllib.loads(f"key = {text}")["key"])
    return text[1:-1]
