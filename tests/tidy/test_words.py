"""One word per thing, and no word that says nothing."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tests.tidy.sources import Source, product, python_files

# Each of them says only that somebody did not know what the thing is.
SAY_NOTHING_AT_THE_END = {"manager", "helper", "helpers", "util", "utils", "misc", "info", "handler"}
SAY_NOTHING_ALONE = SAY_NOTHING_AT_THE_END | {"common", "data", "new", "do"}
AS_A_VERB = re.compile(r"^_*(process|do|handle)_[a-z]")
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b|\bNotImplementedError\b")
SILENCERS = re.compile(r"#\s*(noqa|type:\s*ignore)(?P<rest>.*)$")
# Names that a foreign interface calls us by, and the noun.
FOREIGN = {"process_bind_param", "process_result_value", "process_name"}


def own_names(source: Source) -> Iterator[tuple[int, str]]:
    yield 1, source.path.stem
    for node in source.nodes():
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.lineno, node.name
            case ast.arg():
                yield node.lineno, node.arg
            case ast.Name(ctx=ast.Store()):
                yield node.lineno, node.id
            case _:
                pass


def words(name: str) -> list[str]:
    """Split `snake_case` and `CamelCase` into lower-case words."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)]


def says_nothing(name: str) -> bool:
    split = words(name)
    empty = SAY_NOTHING_ALONE if len(split) == 1 else SAY_NOTHING_AT_THE_END
    return bool(split) and split[-1] in empty and not name.isupper() and not name.startswith("test_")


def is_vague_verb(name: str) -> bool:
    return bool(AS_A_VERB.match(name)) and name not in FOREIGN


def test_the_rules_themselves_tell_names_apart() -> None:
    assert all(says_nothing(name) for name in ("JobManager", "user_info", "_data", "helpers", "new"))
    assert not any(says_nothing(name) for name in ("database", "user_data", "renew", "information", "managers_of"))
    assert is_vague_verb("process_row")
    assert not is_vague_verb("processes")


def test_every_function_says_what_it_does() -> None:
    vague = [
        f"{source.name}:{function.lineno} {function.name}"
        for source in python_files()
        for function in source.functions()
        if is_vague_verb(function.name)
    ]
    assert vague == []


def test_every_name_says_something() -> None:
    empty = [
        f"{source.name}:{line} {name}"
        for source in python_files()
        for line, name in own_names(source)
        if says_nothing(name)
    ]
    assert empty == []


def test_nothing_is_left_for_later() -> None:
    later = [
        f"{source.name}:{number} {line.strip()}"
        for source in python_files()
        for number, line in enumerate(source.lines, start=1)
        if UNFINISHED.search(line) and source.name != "tests/tidy/test_words.py"
    ]
    assert later == []


def test_whoever_silences_a_check_names_it_and_gives_the_reason() -> None:
    silent = [
        f"{source.name}:{number} {line.strip()}"
        for source in product()
        for number, line in enumerate(source.lines, start=1)
        if (found := SILENCERS.search(line))
        and not re.match(r"(:\s*[A-Z0-9, ]+|\[[a-z, -]+\])\s*[-#—]*\s*\w", found["rest"])
    ]
    assert silent == []
