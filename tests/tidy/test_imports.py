"""An import inside a function hides a dependency, so each one says why it is there."""

from __future__ import annotations

import ast

from tests.tidy.sources import python_files


def test_an_import_inside_a_function_gives_its_reason() -> None:
    hidden = [
        f"{source.name}:{node.lineno}"
        for source in python_files()
        for function in source.functions()
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom) and "PLC0415" not in source.lines[node.lineno - 1]
    ]
    assert hidden == []
