"""Files that hold a secret: what is wrong with one is told without a byte of what stands in it."""

from __future__ import annotations

from pathlib import Path

from workers.domain.errors import Unfit


def secret_text(file: Path, name: str, remedy: str) -> str:
    """Return the text of a file; `name` is what it is called. Raises `Unfit`."""
    try:
        return file.read_bytes().decode()
    except OSError as error:
        raise Unfit(f"{name} {file} cannot be read ({error.strerror}); {remedy}") from error
    except UnicodeDecodeError:
        pass  # not its cause: that holds the secret
    raise Unfit(f"{name} {file} cannot be read (it is no text in UTF-8); {remedy}")
