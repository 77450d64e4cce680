"""`spot-runner`: a table of commands.

Each command loads only what its own process needs: a host must not load Celery, nor the receiver an engine.
"""

from __future__ import annotations

import sys
from enum import StrEnum, auto
from pathlib import Path
from typing import Annotated, Final

import typer
from pydantic import ValidationError

from workers.domain.errors import SpotError
from workers.domain.pools import Origin
from workers.settings import ControlSettings, HostSettings, RelaySettings

# What was given is wrong, or this machine lacks something; nothing was started.
EXIT_UNFIT: Final = 2

app: Final = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def about() -> None:
    """Run GitHub Actions jobs in microVMs on spot hosts, and move them when a host is taken away."""


@app.command()
def serve() -> None:
    """Receive from GitHub and from hosts."""
    from workers.bootstrap.serve import run_serve  # noqa: PLC0415 - a host must not load Flask

    raise typer.Exit(run_serve(ControlSettings()))


@app.command()
def worker() -> None:
    """Decide and act: the queues evacuation, control and cloud, and the beat."""
    from workers.bootstrap.worker import run_worker  # noqa: PLC0415 - a host must not load Celery

    raise typer.Exit(run_worker(ControlSettings()))


@app.command()
def host(
    *,
    show_class: Annotated[bool, typer.Option("--class", help="Only show which guests this machine can run.")] = False,
) -> None:
    """Run microVMs on this machine."""
    from workers.bootstrap.host import run_host  # noqa: PLC0415 - only a host needs the engine
    from workers.bootstrap.host_class import run_show  # noqa: PLC0415 - the same

    if show_class:
        run_show(HostSettings())
    else:
        run_host(HostSettings())


@app.command()
def relay() -> None:
    """Give the guests of all hosts one constant address."""
    from workers.bootstrap.relay import run_relay  # noqa: PLC0415 - only the relay needs the kernel's networks

    run_relay(RelaySettings())


class Play(StrEnum):
    """What the demo shows."""

    JOB = auto()
    VALKEY = auto()


@app.command()
def demo(  # noqa: PLR0913 - each is an option of the command
    play: Annotated[Play, typer.Argument(help="A job, or a Redis server under a steady client.")] = Play.JOB,
    *,
    json: Annotated[Path | None, typer.Option(help="Write the report here.")] = None,
    no_interruption: Annotated[bool, typer.Option("--no-interruption", help="Let the host live.")] = False,
    notice_seconds: Annotated[float, typer.Option(min=0, max=600, help="0: the host dies without a notice.")] = 60,
    hosts: Annotated[int, typer.Option(min=0, max=8, help="Hosts that are ready at the start.")] = 1,
    jobs: Annotated[int, typer.Option(min=1, max=16, help="Jobs at once.")] = 1,
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running and print the URLs.")] = False,
    seed: Annotated[int, typer.Option(help="Chooses the moment, and the host, of the interruption.")] = 0,
    tests: Annotated[
        str, typer.Option(help="Which of CPython's tests the job runs; ten seconds of them or more.")
    ] = "",
    no_cold_boot: Annotated[
        bool, typer.Option("--no-cold-boot", help="Do not measure a boot without a snapshot; saves a minute.")
    ] = False,
    overlay: Annotated[
        bool, typer.Option("--overlay", help="Every second host is another cloud's, behind a NAT; all use WireGuard.")
    ] = False,
    name: Annotated[str, typer.Option(help="Rehearsals with different names can run at once.")] = "spot",
) -> None:
    """Play the whole service on this machine: a job runs, its host is taken away, the job survives."""
    from workers.bootstrap.rehearsal import run_demo, run_valkey  # noqa: PLC0415 - it loads nearly everything
    from workers.rehearsal.steady.play import SteadyOptions  # noqa: PLC0415 - the same
    from workers.rehearsal.story import TESTS, Options  # noqa: PLC0415 - the same

    if play is Play.VALKEY:
        raise typer.Exit(run_valkey(SteadyOptions(name=name, json=json)))
    options = Options(
        name=name,
        json=json,
        interruption=not no_interruption,
        notice_seconds=notice_seconds,
        hosts=hosts,
        jobs=jobs,
        keep=keep,
        seed=seed,
        tests=tests or TESTS,
        cold_boot=not no_cold_boot,
        overlay=overlay,
    )
    raise typer.Exit(run_demo(options))


@app.command()
def drill(
    *,
    count: Annotated[int, typer.Option(min=1, max=1000, help="How many interruptions.")] = 10,
    notice_seconds: Annotated[str, typer.Option(help="How long before its end a host is told, A or A..B.")] = "20..60",
    faults: Annotated[
        str, typer.Option(help="What else goes wrong: none, all, or a list of NAME or NAME@PHASE.")
    ] = "none",
    jobs: Annotated[int, typer.Option(min=1, max=16, help="Jobs at once.")] = 2,
    seed: Annotated[int, typer.Option(help="Chooses moments, hosts and faults.")] = 0,
    json: Annotated[Path | None, typer.Option(help="Write the report here; go on from it if it is there.")] = None,
    name: Annotated[str, typer.Option(help="Rehearsals with different names can run at once.")] = "drill",
) -> None:
    """Take hosts away from running jobs again and again, and count how many survive."""
    from workers.bootstrap.rehearsal import run_drill  # noqa: PLC0415 - it loads nearly everything
    from workers.rehearsal.drill.faults import chosen_faults  # noqa: PLC0415 - the same
    from workers.rehearsal.drill.interruption import span  # noqa: PLC0415 - the same
    from workers.rehearsal.drill.play import DrillOptions  # noqa: PLC0415 - the same

    options = DrillOptions(
        count=count,
        name=name,
        notice_s=span(notice_seconds),
        faults=chosen_faults(faults),
        jobs=jobs,
        seed=seed,
        json=json,
    )
    raise typer.Exit(run_drill(options))


@app.command()
def explain(
    job: Annotated[int | None, typer.Argument(help="GitHub's number of a job.")] = None,
    *,
    labels: Annotated[str | None, typer.Option(help="As after runs-on:, one label or a list of them.")] = None,
    repository: Annotated[str, typer.Option(help="Of a job that asks so, OWNER/NAME.")] = "octo-org/hello",
    fork: Annotated[bool, typer.Option("--fork", help="It comes from a fork of a public repository.")] = False,
) -> None:
    """Say what labels mean here, which pool and machine they get, or why they get none and what to write instead."""
    from workers.bootstrap.explain import run_explain  # noqa: PLC0415 - a host must not load the store

    raise typer.Exit(run_explain(ControlSettings(), job, labels, Origin(repository, is_public=fork, is_fork=fork)))


package: Final = typer.Typer(no_args_is_help=True, help="Make and check what runners start from.")
app.add_typer(package, name="package")
PackageFile = Annotated[Path, typer.Argument(help="A package, for example one in /var/cache/spot-runner/packages.")]


@package.command()
def build(recipe: Annotated[Path, typer.Argument(help="For example runner-vm/packages/debian-12.toml.")]) -> None:
    """Make the package of a recipe and print its digest."""
    from workers.bootstrap.package import run_build  # noqa: PLC0415 - only a build needs the monitor

    run_build(HostSettings(), recipe)


@package.command()
def inspect(file: PackageFile) -> None:
    """Show what a package says of itself."""
    from workers.bootstrap.package import run_inspect  # noqa: PLC0415 - only a build needs the monitor

    run_inspect(file)


@package.command()
def verify(file: PackageFile) -> None:
    """Say whether a package is whole and whether this machine can run it."""
    from workers.bootstrap.package import run_verify  # noqa: PLC0415 - only a build needs the monitor

    run_verify(HostSettings(), file)


def main() -> None:
    """Run one command; what goes wrong on purpose is one sentence."""
    try:
        app()
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = "_".join(str(part) for part in first["loc"]).upper()
        _refuse(f"SPOT_RUNNER_{name.removeprefix('SPOT_RUNNER_')}: {first['msg']}")
    except SpotError as error:
        _refuse(str(error))


def _refuse(sentence: str) -> None:
    sys.stderr.write(f"spot-runner: {sentence}\n")
    sys.exit(EXIT_UNFIT)


if __name__ == "__main__":
    main()
