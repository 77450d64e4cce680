"""`spot-runner package …`: a table of commands."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Final

import typer

from workers.domain.names import PackageDigest
from workers.settings import HostSettings

package: Final = typer.Typer(no_args_is_help=True, help="Make and check what runners start from.")
PackageFile = Annotated[Path, typer.Argument(help="A package, for example one in /var/cache/spot-runner/packages.")]
RecipeFile = Annotated[Path, typer.Argument(help="For example runner-vm/packages/debian-12.toml.")]
Archive = Annotated[
    Path | None, typer.Option(help="The runner program's archive, instead of fetching it from where the recipe says.")
]


@package.command()
def build(
    recipe: RecipeFile,
    *,
    runner_archive: Archive = None,
    from_oci: Annotated[
        str | None,
        typer.Option(help="An OCI image, REF or a folder with its layout, in the place of the recipe's distribution."),
    ] = None,
) -> None:
    """Make the package of a recipe and print its digest."""
    from workers.bootstrap.package import run_build  # noqa: PLC0415 - only a build needs the monitor
    from workers.host.rootfs import Given  # noqa: PLC0415 - the same

    run_build(HostSettings(), recipe, Given(runner_archive, from_oci))


@package.command()
def pin(
    recipe: RecipeFile,
    *,
    released: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="The day of its release.")],
    version: Annotated[str | None, typer.Option(help="Its version, if the file's name does not tell.")] = None,
    runner_archive: Archive = None,
) -> None:
    """Read the archive of a recipe's runner program, and write into the recipe which release it is and its SHA-256."""
    from workers.bootstrap.package import run_pin  # noqa: PLC0415 - only a build needs the monitor

    run_pin(recipe, runner_archive, version, released.date())


@package.command()
def renew(
    recipe: RecipeFile,
    *,
    pools: Annotated[
        Path | None, typer.Option(help="The policy file in which the new package takes the former one's place.")
    ] = None,
    released: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="With --runner-archive: the day of its release.")
    ] = None,
    runner_archive: Archive = None,
) -> None:
    """Look for a newer release of the runner program; build its package, prove it, and only then put it in use."""
    from workers.bootstrap.renewal import Wanted, run_renew  # noqa: PLC0415 - only a build needs the monitor

    wanted = Wanted(recipe, runner_archive, released.date() if released else None, pools)
    run_renew(HostSettings(), wanted, typer.echo)


@package.command()
def fetch(
    digests: Annotated[list[str], typer.Argument(metavar="DIGEST", help="The packages that are wanted.")],
    *,
    voucher: Annotated[Path, typer.Option(help="A file that holds the URL of a voucher, or - for standard input.")],
    into: Annotated[Path | None, typer.Option(help="By default where this machine has its packages.")] = None,
) -> None:
    """Fetch published packages by a voucher, as a builder of images does; started again it goes on where it was."""
    from workers.bootstrap.fetch import run_fetch  # noqa: PLC0415 - only this command fetches

    run_fetch(voucher, into or HostSettings().package_store, tuple(PackageDigest(one) for one in digests))


@package.command()
def inspect(file: PackageFile) -> None:
    """Show what a package says of itself."""
    from workers.bootstrap.package import run_inspect  # noqa: PLC0415 - only a build needs the monitor

    run_inspect(file)


@package.command()
def sbom(
    package: Annotated[str, typer.Argument(help="The digest of a package that is here, or its recipe's name.")],
) -> None:
    """Print what is inside a package as a bill of materials (CycloneDX 1.5, JSON)."""
    from workers.bootstrap.package import run_sbom  # noqa: PLC0415 - only a build needs the monitor

    run_sbom(HostSettings(), package)


@package.command()
def verify(file: PackageFile) -> None:
    """Say whether a package is whole and whether this machine can run it."""
    from workers.bootstrap.package import run_verify  # noqa: PLC0415 - only a build needs the monitor

    run_verify(HostSettings(), file)
