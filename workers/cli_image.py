"""`spot-runner image`: what hosts boot."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

image: Final = typer.Typer(no_args_is_help=True, help="Make what hosts boot.")


@image.callback()
def about_image() -> None:
    """Make what hosts boot."""


@image.command()
def pin(
    source: Annotated[str, typer.Argument(help="The name of a kernel in versions.toml.")],
    package: Annotated[
        str | None,
        typer.Argument(
            metavar="[FILE|URL]", help="Its package; by default what the entry's url leads to, if it is one."
        ),
    ] = None,
    *,
    versions: Annotated[Path | None, typer.Option(help="By default images/versions.toml.")] = None,
) -> None:
    """Read the package of a kernel, and write its version and SHA-256 into versions.toml."""
    from workers.bootstrap.image import run_pin  # noqa: PLC0415 - a host makes no images

    typer.echo(run_pin(source, package, versions))
