"""The tree as the tidy tests see it: what git keeps, or would keep."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Source:
    """One Python file."""

    path: Path

    @property
    def name(self) -> str:
        return str(self.path.relative_to(ROOT))

    @property
    def is_test(self) -> bool:
        return self.name.startswith("tests/")

    @property
    def lines(self) -> list[str]:
        return self.path.read_text().splitlines()

    def nodes(self) -> Iterator[ast.AST]:
        return ast.walk(parsed(self.path))

    def functions(self) -> Iterator[Function]:
        return (node for node in self.nodes() if isinstance(node, Function))


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def kept(*patterns: str) -> tuple[Path, ...]:
    """Return the files that git has, or would have, under these names; all without any."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=30,
    ).stdout.splitlines()
    return tuple(path for name in listed if (path := ROOT / name).is_file())


@cache
def python_files() -> tuple[Source, ...]:
    return tuple(Source(path) for path in (*kept("*.py"), ROOT / "dev"))


def product() -> tuple[Source, ...]:
    return tuple(source for source in python_files() if not source.is_test)


def length(function: Function) -> int:
    return (function.end_lineno or function.lineno) - function.lineno + 1
