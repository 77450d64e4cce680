"""What `./dev` says to whoever asks for nothing, or for something that there is not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

DEV = Path(__file__).parents[2] / "dev"


def said(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(DEV), *words], capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.parametrize("words", [("wrongword",), ("chek", "--help"), ("",)])
def test_a_word_that_is_no_command_is_named_in_one_sentence(words: tuple[str, ...]) -> None:
    answer = said(*words)
    assert (answer.returncode, answer.stdout) == (2, "")
    (line,) = answer.stderr.splitlines()
    assert line.startswith(f"./dev: {words[0]!r} is no command; say one of demo, drill, test, check, ")


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",)])
def test_whoever_asks_for_help_gets_it(words: tuple[str, ...]) -> None:
    answer = said(*words)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "./dev test [options]" in answer.stdout
