"""The size budget: what is too long to be read at one go is too long to be right."""

from __future__ import annotations

import statistics

from tests.tidy.sources import length, product, python_files

FUNCTION_MAX = 50
FUNCTION_MEDIAN_MAX = 8
FUNCTION_P90_MAX = 25
FILE_MAX = 400
FILE_MEDIAN_MAX = 150


def test_no_function_is_too_long() -> None:
    long = [
        f"{source.name}:{function.lineno} {function.name}: {length(function)} lines"
        for source in python_files()
        for function in source.functions()
        if length(function) > FUNCTION_MAX
    ]
    assert long == []


def test_no_file_is_too_long() -> None:
    long = [f"{source.name}: {len(source.lines)} lines" for source in python_files() if len(source.lines) > FILE_MAX]
    assert long == []


def test_most_functions_are_short() -> None:
    lengths = [length(function) for source in product() for function in source.functions()]
    assert statistics.median(lengths) <= FUNCTION_MEDIAN_MAX
    assert statistics.quantiles(lengths, n=10)[-1] <= FUNCTION_P90_MAX


def test_most_files_are_short() -> None:
    assert statistics.median(len(source.lines) for source in product()) <= FILE_MEDIAN_MAX
