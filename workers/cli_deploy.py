"""`spot-runner deploy`: the machine of a control plane."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from workers.settings import ControlSettings

deploy: Final = typer.Typer(no_args_is_help=True, help="Make the machine of a control plane.")


@deploy.callback()
def about_deploy() -> None:
    """Make the machine of a control plane; at AWS infra/aws does."""


@deploy.command()
def hetzner(  # noqa: PLR0913 - each is an option of the command
    *,
    public_name: Annotated[str, typer.Option(help="How GitHub and people reach it: runners.example.org.")],
    location: Annotated[str, typer.Option(help="For example fsn1.")],
    ssh_key: Annotated[Path, typer.Option(help="The public key of whoever may log in.")],
    admin_network: Annotated[str, typer.Option(help="From where: 203.0.113.7/32.")],
    source: Annotated[str, typer.Option(help="The git repository that it is installed from.")],
    revision: Annotated[str, typer.Option(help="The commit.")],
    package_digest: Annotated[str, typer.Option("--package", help="The digest of what runners start from.")],
    name: Annotated[str, typer.Option(help="The server's.")] = "spot-runner",
    server_type: Annotated[str | None, typer.Option(help="By default the cheapest that is large enough.")] = None,
    volume_gb: Annotated[int, typer.Option(min=10, max=10240, help="For keys, certificates and the store.")] = 20,
) -> None:
    """Make a control plane in the project of SPOT_RUNNER_HETZNER_TOKEN_FILE; if it is there, nothing is made twice."""
    from workers.bootstrap.deploy import Wish, run_deploy_hetzner  # noqa: PLC0415 - a host must not load a cloud
    from workers.domain.first_boot import Program  # noqa: PLC0415 - the same

    program = Program(public_name, source, revision, package_digest)
    wish = Wish(name, location, server_type, ssh_key, admin_network, volume_gb, program)
    raise typer.Exit(run_deploy_hetzner(ControlSettings(), wish))
