"""`spot-runner image`: what hosts boot."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from workers.domain.errors import BadInput
from workers.settings import ControlSettings, HostSettings

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
def build(  # noqa: PLR0913 - each is an option of the command
    *,
    cloud: Annotated[str, typer.Option(help="local-qcow2, aws or hetzner.")],
    kernel: Annotated[str, typer.Option(help="kvm or pvm.")],
    source: Annotated[str, typer.Option(help="The name of a kernel in versions.toml.")],
    output: Annotated[
        Path | None, typer.Option(help="With local-qcow2: is made, or replaced when the new one is whole.")
    ] = None,
    disk_mib: Annotated[int, typer.Option(help="Not at Hetzner. It grows to its machine's disk.")] = 4096,
    package: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE|DIGEST",
            help="A runner package that it brings along: with local-qcow2 its file, in a cloud the digest of a "
            "published one; may be repeated.",
        ),
    ] = None,
    kernel_package: Annotated[
        Path | None, typer.Option(help="With local-qcow2: the pinned kernel's file; else it is fetched where it was.")
    ] = None,
    setting: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="One of the daemon's settings; may be repeated.")
    ] = None,
    base_image: Annotated[
        str | None, typer.Option(help="In a cloud: Debian's own image there, ami-…; not needed at Hetzner.")
    ] = None,
    repository: Annotated[str | None, typer.Option(help="In a cloud: where it gets spot-runner from.")] = None,
    revision: Annotated[str | None, typer.Option(help="In a cloud: which commit of it.")] = None,
) -> None:
    """Make an image that hosts boot."""
    told, packages = tuple(setting or ()), tuple(package or ())
    if cloud == "aws":
        from workers.bootstrap.image_aws import AwsWish, run_build_aws  # noqa: PLC0415 - a host must not load a cloud

        _refuse_files(cloud, output, kernel_package)
        at_aws = AwsWish(kernel, source, disk_mib, base_image, repository, revision, told, packages)
        run_build_aws(ControlSettings(), at_aws)
        return
    if cloud == "hetzner":
        from workers.bootstrap.image_hetzner import HetznerWish, run_build_hetzner  # noqa: PLC0415 - the same

        _refuse_files(cloud, output, kernel_package)
        at_hetzner = HetznerWish(kernel, source, base_image, repository, revision, told, packages)
        run_build_hetzner(ControlSettings(), at_hetzner)
        return
    from workers.bootstrap.image import Wish, run_build  # noqa: PLC0415 - a host makes no images

    wish = Wish(cloud, kernel, source, output, disk_mib, tuple(map(Path, packages)), told, kernel_package)
    run_build(HostSettings(), wish)


def _refuse_files(cloud: str, output: Path | None, kernel_package: Path | None) -> None:
    if output is not None:
        raise BadInput(f"--cloud {cloud} takes no --output: the image stays at the cloud")
    if kernel_package is not None:
        raise BadInput(f"--cloud {cloud} takes no --kernel-package: a builder there fetches what is pinned")
