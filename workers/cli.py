"""`spot-runner`: a table of commands.

Each command loads only what its own process needs: a host must not load Celery, nor the receiver an engine.
"""

from __future__ import annotations

import gc
import sys
from enum import StrEnum, auto
from pathlib import Path
from typing import Annotated, Final

import typer
from pydantic import ValidationError

from workers.cli_deploy import deploy
from workers.cli_image import image
from workers.cli_package import package
from workers.domain.errors import BadInput, SpotError
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
def relay(
    *,
    identity: Annotated[
        Path | None, typer.Option(help="Only write the relay's first certificate there, on the control plane.")
    ] = None,
) -> None:
    """Give the guests of all hosts one constant address."""
    if identity is not None:
        from workers.bootstrap.leaf import write_relay_identity  # noqa: PLC0415 - the relay has no authority

        write_relay_identity(ControlSettings(), identity)
        return
    from workers.bootstrap.relay import run_relay  # noqa: PLC0415 - only the relay needs the kernel's networks

    run_relay(RelaySettings())


@app.command()
def setup(
    *,
    manual: Annotated[
        bool, typer.Option("--manual", help="Keep a GitHub App that exists instead of making one.")
    ] = False,
    app_id: Annotated[
        int | None, typer.Option(help="With --manual: the App's number; asked for if it is not given.")
    ] = None,
    key_file: Annotated[Path | None, typer.Option(help="With --manual: its private key, PEM.")] = None,
    secret_file: Annotated[Path | None, typer.Option(help="With --manual: the webhook's secret, on a line.")] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="With --manual: put it in the place of the one that is kept.")
    ] = False,
) -> None:
    """Show the way to make the GitHub App in the browser, or say what the one that there is lacks."""
    from workers.bootstrap.setup import run_manual, run_setup  # noqa: PLC0415 - a host must not load the receiver

    if not manual:
        raise typer.Exit(run_setup(ControlSettings()))
    number = app_id if app_id is not None else typer.prompt("Number of the App (App ID)", type=int)
    key = key_file or typer.prompt("File with its private key (PEM)", type=Path)
    secret = secret_file or typer.prompt("File with the webhook's secret", type=Path)
    raise typer.Exit(run_manual(ControlSettings(), number, key, secret, may_replace=replace))


class Play(StrEnum):
    """What the demo shows."""

    JOB = auto()
    CLOUDS = auto()
    VALKEY = auto()


@app.command()
def demo(  # noqa: PLR0913 - each is an option of the command
    play: Annotated[
        Play, typer.Argument(help="A job, a job that moves from AWS to Hetzner, or a Redis server under a client.")
    ] = Play.JOB,
    *,
    json: Annotated[Path | None, typer.Option(help="Write the report here.")] = None,
    no_interruption: Annotated[bool, typer.Option("--no-interruption", help="Let the host live.")] = False,
    notice_seconds: Annotated[
        float, typer.Option(min=0, max=600, help="0: the host dies without a notice. EC2's, with clouds, is 120.")
    ] = 60,
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
    from workers.bootstrap.rehearsal import run_clouds, run_demo, run_valkey  # noqa: PLC0415 - it loads nearly everything
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
    raise typer.Exit(run_clouds(options) if play is Play.CLOUDS else run_demo(options))


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
    deployment: Annotated[
        bool, typer.Option("--deployment", help="Take back hosts of this deployment, under its own jobs.")
    ] = False,
) -> None:
    """Take hosts away from running jobs again and again, and count how many survive."""
    if deployment:
        raise typer.Exit(_drill_deployment(count, notice_seconds, faults, seed, json))
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


def _drill_deployment(count: int, notice_seconds: str, faults: str, seed: int, json: Path | None) -> int:
    from workers.bootstrap.drill import run_deployment_drill  # noqa: PLC0415 - only a drill needs the clouds and the store
    from workers.rehearsal.drill.deployment import Order  # noqa: PLC0415 - the same
    from workers.rehearsal.drill.interruption import span  # noqa: PLC0415 - the same

    if faults != "none":
        raise BadInput(f"--faults {faults}: nothing but interruptions is planted in a deployment; leave it out")
    return run_deployment_drill(ControlSettings(), Order(count, span(notice_seconds), seed, json))


@app.command()
def explain(
    job: Annotated[int | None, typer.Argument(help="GitHub's number of a job.")] = None,
    *,
    labels: Annotated[str | None, typer.Option(help="As after runs-on:, one label or a list of them.")] = None,
    repository: Annotated[str, typer.Option(help="Of a job that asks so, OWNER/NAME.")] = "octo-org/hello",
    fork: Annotated[bool, typer.Option("--fork", help="It comes from a fork of a public repository.")] = False,
    installation: Annotated[
        int | None, typer.Option(help="Know only jobs of this installation of the App, so of one organization.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Say instead how long this host took to be READY.")] = None,
) -> None:
    """Say what labels mean here, which pool and machine they get, or why they get none and what to write instead."""
    from workers.bootstrap.explain import run_explain  # noqa: PLC0415 - a host must not load the store
    from workers.bootstrap.explain_host import run_explain_host  # noqa: PLC0415 - the same

    if host is not None:
        raise typer.Exit(run_explain_host(ControlSettings(), host))

    origin = Origin(repository, is_public=fork, is_fork=fork)
    raise typer.Exit(run_explain(ControlSettings(), job, labels, origin, installation))


@app.command()
def plan(
    *,
    offers: Annotated[
        Path | None, typer.Option(help="What there is to be had; by default the file of SPOT_RUNNER_OFFERS_FILE.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="As one JSON document.")] = False,
) -> None:
    """Say which hosts would be asked for now, and why; nothing is bought."""
    gc.disable()  # what is loaded and read is kept to the end, which is soon: to look for garbage finds none
    try:
        from workers.bootstrap.plan import run_plan  # noqa: PLC0415 - a host must not load the store

        raise typer.Exit(run_plan(ControlSettings(), offers, as_json=json))
    finally:
        gc.freeze()  # or the first look, at the latest when Python ends, would go through all of it
        gc.enable()


@app.command()
def doctor() -> None:
    """Look at everything that a deployment needs, and say what is wrong; status 1 if anything is."""
    from workers.bootstrap.doctor import run_doctor  # noqa: PLC0415 - a host must not load the store

    raise typer.Exit(run_doctor(ControlSettings()))


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(help="Is made, for you alone to read; must not be there yet.")],
) -> None:
    """Write the store, the authority and what is sealed to a file, while the deployment goes on."""
    from workers.bootstrap.backup import run_backup  # noqa: PLC0415 - a host must not load the store

    raise typer.Exit(run_backup(ControlSettings(), file))


@app.command()
def restore(file: Annotated[Path, typer.Argument(help="What spot-runner backup has made.")]) -> None:
    """Make an empty home, and an empty store, what they were when this backup was made."""
    from workers.bootstrap.backup import run_restore  # noqa: PLC0415 - a host must not load the store

    raise typer.Exit(run_restore(ControlSettings(), file))


pools: Final = typer.Typer(no_args_is_help=True, help="Check what the administrator allows.")
app.add_typer(pools, name="pools")


@pools.command()
def check(
    file: Annotated[Path | None, typer.Argument(help="By default the one of SPOT_RUNNER_POOLS_FILE.")] = None,
) -> None:
    """Say what is wrong with a policy file, each problem with its line; status 1 if anything is."""
    from workers.bootstrap.pools_check import run_check  # noqa: PLC0415 - a host needs no policy

    raise typer.Exit(run_check(ControlSettings(), file))


app.add_typer(deploy, name="deploy")
app.add_typer(image, name="image")
app.add_typer(package, name="package")


@package.command()
def publish(
    named: Annotated[str, typer.Argument(metavar="DIGEST|FILE", help="A package here, by its digest or its file.")],
) -> None:
    """Put a package into the object store, from where hosts fetch it; done twice it changes nothing."""
    from workers.bootstrap.publish import run_publish  # noqa: PLC0415 - only whoever publishes needs the object store

    run_publish(ControlSettings(), HostSettings(), named)


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
