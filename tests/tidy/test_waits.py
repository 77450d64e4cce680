"""Every wait has an end: calls that would wait for ever by default are given a limit."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.tidy.sources import Source, product, python_files

# Call -> the argument without which it may wait for ever, and how many positional arguments already give one.
LIMITED = {
    "subprocess.run": ("timeout", 99),
    "subprocess.check_call": ("timeout", 99),
    "subprocess.check_output": ("timeout", 99),
    "socket.create_connection": ("timeout", 2),
    "urllib.request.urlopen": ("timeout", 3),
}
# `./dev` waits for package managers, builds and tests, each with an end of its own; the user's Ctrl-C is the limit.
# The demo's last act is to wait for Ctrl-C.
EXEMPT = {"dev"}


def called(node: ast.AST) -> tuple[ast.Call, str] | None:
    return (node, ast.unparse(node.func)) if isinstance(node, ast.Call) else None


def unlimited(source: Source) -> Iterator[str]:
    for found in filter(None, map(called, source.nodes())):
        call, name = found
        argument, positional = LIMITED.get(name, (None, 0))
        named = {keyword.arg for keyword in call.keywords}
        if argument is not None and not {argument, None} & named and len(call.args) < positional:
            yield f"{source.name}:{call.lineno} {name}"


def test_no_call_waits_for_ever() -> None:
    assert [one for source in product() if source.name not in EXEMPT for one in unlimited(source)] == []


def test_nobody_sleeps_instead_of_waiting_for_something() -> None:
    """A sleep may stand inside the loop that looks at a condition, nowhere else."""
    asleep = []
    for source in python_files():
        loops = [node for node in source.nodes() if isinstance(node, ast.While | ast.For | ast.AsyncFor)]
        looped = {id(inner) for loop in loops for inner in ast.walk(loop)}
        for found in filter(None, map(called, source.nodes())):
            call, name = found
            if name in {"time.sleep", "asyncio.sleep"} and id(call) not in looped and not is_zero(call):
                asleep.append(f"{source.name}:{call.lineno} {name}")
    assert asleep == []


def is_zero(call: ast.Call) -> bool:
    """A sleep of nothing lets others run."""
    return [ast.unparse(argument) for argument in call.args] == ["0"]
