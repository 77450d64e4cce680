"""Every complaint of docs/complaints.md has its tests, and they are there."""

from __future__ import annotations

import ast
import re
from functools import cache

from tests.tidy.sources import ROOT

ROW = re.compile(r"^\| (?P<complaint>[^|]+) \| (?P<where>[^|]+) \| (?P<tests>[^|]+) \|$", re.MULTILINE)
NAMED = re.compile(r"`([^`]+)`")


def rows() -> list[tuple[str, list[str]]]:
    text = (ROOT / "docs/complaints.md").read_text("utf-8")
    found = [(one["complaint"], NAMED.findall(one["tests"])) for one in ROW.finditer(text)]
    return [(complaint, names) for complaint, names in found if complaint not in {"complaint", "---"}]


@cache
def names_in(path: str) -> frozenset[str]:
    file = ROOT / "tests" / path
    if not file.is_file():
        return frozenset()
    tree = ast.parse(file.read_text("utf-8"))
    return frozenset(one.name for one in ast.walk(tree) if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef))


def test_every_complaint_names_tests_that_are_there() -> None:
    assert len(rows()) > 20
    assert [complaint for complaint, names in rows() if not names] == []
    named = [(complaint, name) for complaint, names in rows() for name in names]
    missing = [
        f"{complaint}: {name}"
        for complaint, name in named
        if name.partition("::")[2] not in names_in(name.partition("::")[0])
    ]
    assert missing == []
