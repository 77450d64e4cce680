"""Hetzner's label selectors: `k=v`, `k==v`, `k!=v`, `k`, `!k`, `k in (a,b)`, `k notin (a,b)`, joined by commas."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from workers.rehearsal.hetzner.records import bad_field

# Commas inside brackets join nothing.
_PARTS: Final = re.compile(r",(?![^(]*\))")
_KEY: Final = r"(?P<key>[A-Za-z0-9][A-Za-z0-9._/-]*)"
_SET: Final = re.compile(_KEY + r"\s+(?P<how>in|notin)\s+\((?P<values>[^()]*)\)")
_EQUAL: Final = re.compile(_KEY + r"\s*(?P<how>==|=|!=)\s*(?P<value>[A-Za-z0-9._-]*)")
_PRESENT: Final = re.compile(r"(?P<not>!?)\s*" + _KEY)
LABEL_KEY: Final = re.compile(
    r"([a-zA-Z0-9]([a-zA-Z0-9._-]{0,251}[a-zA-Z0-9])?/)?[a-zA-Z0-9]([a-zA-Z0-9._-]{0,61}[a-zA-Z0-9])?"
)
LABEL_VALUE: Final = re.compile(r"([a-zA-Z0-9]([a-zA-Z0-9._-]{0,61}[a-zA-Z0-9])?)?")
RESERVED: Final = "hetzner.cloud/"

Labels = Mapping[str, str]
Matches = Callable[[Labels], bool]


def selector_of(text: str) -> Matches:
    """Read a selector. Raises `ApiError`."""
    conditions = [_condition(part.strip()) for part in _PARTS.split(text) if part.strip()]
    return lambda labels: all(holds(labels) for holds in conditions)


def checked_labels(value: object) -> dict[str, str]:
    """Return labels that Hetzner would take. Raises `ApiError`."""
    if not isinstance(value, dict):
        raise bad_field("labels", "must be an object")
    for key, text in value.items():
        if not LABEL_KEY.fullmatch(key) or key.startswith(RESERVED):
            raise bad_field("labels", f"label key {key!r} is not correctly formatted")
        if not isinstance(text, str) or not LABEL_VALUE.fullmatch(text):
            raise bad_field("labels", f"label value {text!r} is not correctly formatted")
    return dict(value)


def _condition(text: str) -> Matches:
    if found := _SET.fullmatch(text):
        key, wanted = found["key"], {value.strip() for value in found["values"].split(",")}
        if found["how"] == "in":
            return lambda labels: labels.get(key) in wanted
        return lambda labels: labels.get(key) not in wanted
    if found := _EQUAL.fullmatch(text):
        key, value = found["key"], found["value"]
        if found["how"] == "!=":
            return lambda labels: labels.get(key) != value
        return lambda labels: labels.get(key) == value
    if found := _PRESENT.fullmatch(text):
        key, is_wanted = found["key"], not found["not"]
        return lambda labels: (key in labels) == is_wanted
    raise bad_field("label_selector", f"{text!r} is not a condition")
