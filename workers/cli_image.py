"""`spot-runner image`: what hosts boot."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from workers.settings import HostSettings

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


@image.command()
def build(
    *,
    cloud: Annotated[str, typer.Option(help="local-qcow2.")],
    kernel: Annotated[str, typer.Option(help="kvm or pvm.")],
    source: Annotated[str, typer.Option(help="The name of a kernel in versions.toml.")],
    output: Annotated[Path, typer.Option(help="Is made, or replaced when the new one is whole.")],
    disk_mib: Annotated[int, typer.Option(help="It grows to its machine's disk when it is first booted.")] = 4096,
    package: Annotated[list[Path], typer.Option(help="A runner package that it brings along; may be repeated.")] = [],  # noqa: B006 - typer's
    setting: Annotated[
        list[str], typer.Option(metavar="NAME=VALUE", help="One of the daemon's settings; may be repeated.")
    ] = [],  # noqa: B006 - typer's
) -> None:
    """Make an image that hosts boot."""
    from workers.bootstrap.image import Wish, run_build  # noqa: PLC0415 - a host makes no images

    run_build(HostSettings(), Wish(cloud, kernel, source, output, disk_mib, tuple(package), tuple(setting)))
