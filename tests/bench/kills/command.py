"""`./dev bench kills`: the control plane is killed while it rents and ends machines, or makes images; what is left?

Each life of it is a process of its own that rents hosts through the real adapter and writes the real store; it gets
SIGKILL at a moment drawn by lot. AWS is moto's server behind the wrapper that answers client tokens again, Hetzner is
the simulator. In the end one life more looks after what the dead have left, as a sweep does, and the clouds themselves
are asked, not we.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from tests.bench.kills.images import WANTED, builders_at_aws
from tests.bench.kills.life import AWS, HETZNER, Wish
from tests.contract.aws_cloud import deployed, open_site
from tests.contract.aws_server import running_moto
from tests.contract.clouds import answering
from workers.clock import SystemClock
from workers.providers.hetzner.builder import BUILDER_LABEL, KEY_LABEL
from workers.rehearsal.hetzner.app import Settings, Simulation
from workers.rehearsal.hetzner.project import Spans

TOKEN: Final = "simulated-token"
DEPLOYMENT: Final = "ab12cd"
NEITHER: Final = "neither"
# A life is killed so long after it has opened store and clients; each call takes some hundredths of a second.
LIFE_S: Final = (0.0, 1.0)
# Most are killed so soon after one of the first calls has begun: before it is carried out, while, or after it.
AMID: Final = 0.8
AMID_S: Final = {AWS: (0.0, 0.12), HETZNER: (0.0, 0.03)}
CALLS_MAX: Final = 8
# Lives are short, so machines and snapshots at Hetzner must not take their time.
HURRY: Final = 50
LOOK_S: Final = 0.002
WAIT_S: Final = 180.0


@dataclass
class Outcome:
    """What came of one cloud."""

    cloud: str
    kills: int = 0
    during: Counter[str] = field(default_factory=Counter)
    """What the cloud had been asked, and had not been seen to answer, when the kill came."""
    made: int = 0
    """Machines in all."""
    doubled: int = 0
    """Hosts for which more than one was made and not ended at once."""
    images: int = 0
    """Those that were made: as many as were wanted, however often that was begun."""
    left: tuple[str, ...] = ()
    """What the cloud says is still there."""
    is_reaped: bool = False
    """The store has no open host any more."""

    @property
    def is_right(self) -> bool:
        """Whether nothing is left."""
        return self.is_reaped and not self.left and not self.doubled and self.made > 0 and self.images == WANTED

    def report(self) -> dict[str, Any]:
        """Return what is written down."""
        return vars(self) | {"during": dict(self.during), "is_right": self.is_right}


@dataclass(frozen=True)
class Side:
    """A cloud that can be asked what it has."""

    wish: Wish
    left: Callable[[], list[str]]
    made: Callable[[], list[str]]
    """The host of every machine that there ever was."""
    images: Callable[[], list[str]]
    """Host images that were made."""


def main(arguments: list[str]) -> int:
    """Kill, print the report and write it; 1 if anything is left."""
    wanted = argparse.ArgumentParser(prog="./dev bench kills", description=__doc__)
    wanted.add_argument("--count", type=int, default=200, help="kills at each cloud")
    wanted.add_argument("--cloud", choices=(AWS, HETZNER), action="append", help="by default both")
    wanted.add_argument("--seed", type=int, default=1)
    wanted.add_argument("--json", type=Path, metavar="FILE", help="where to write the report")
    options = wanted.parse_args(arguments)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it would tell of every request
    outcomes = [kill(cloud, options.count, options.seed) for cloud in options.cloud or (AWS, HETZNER)]
    report = [one.report() for one in outcomes]
    sys.stdout.write(json.dumps(report, indent=1) + "\n")
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=1))
    return 0 if all(one.is_right for one in outcomes) else 1


def kill(cloud: str, count: int, seed: int) -> Outcome:
    """Let so many lives begin and end, look after what is left, and ask the cloud."""
    outcome, dice = Outcome(cloud), random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="kills.") as directory:
        opened = at_aws if cloud == AWS else at_hetzner
        with opened(Path(directory)) as side, lives(side.wish, seed) as nursery:
            for _ in range(count):
                outcome.during[one_life(nursery, side.wish, dice)] += 1
                outcome.kills += 1
            outcome.is_reaped = reap(nursery)
            outcome.left = tuple(side.left())
            outcome.images = len(side.images())
            made = Counter(side.made())
            outcome.made, outcome.doubled = sum(made.values()), sum(times > 1 for times in made.values())
    return outcome


@contextmanager
def lives(wish: Wish, seed: int) -> Iterator[subprocess.Popen[str]]:
    """Start what gives birth."""
    command = [sys.executable, "-m", "tests.bench.kills.life", json.dumps(asdict(wish)), str(seed)]
    nursery = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield nursery
    finally:
        nursery.kill()
        nursery.wait(WAIT_S)


def one_life(nursery: subprocess.Popen[str], wish: Wish, dice: random.Random) -> str:
    """Begin a life and end it at a moment drawn by lot; say what it was about."""
    child, journal = _begin(nursery, "live"), Path(wish.journal)
    if dice.random() < AMID:
        end, calls = time.monotonic() + WAIT_S, dice.randint(1, CALLS_MAX)
        while _calls(journal) < calls and time.monotonic() < end:
            _pass(nursery, LOOK_S)
        _pass(nursery, dice.uniform(*AMID_S[wish.cloud]))
    else:
        _pass(nursery, dice.uniform(*LIFE_S))
    os.kill(child, signal.SIGKILL)
    status = int(_line(nursery))
    assert status == -signal.SIGKILL, f"a life has ended by itself: {status}"
    about = _about(journal)
    journal.write_text("")
    return about


def _calls(journal: Path) -> int:
    """Return how many calls have begun."""
    told = journal.read_text().splitlines() if journal.exists() else []
    return sum(one != "-" for one in told)


def _about(journal: Path) -> str:
    """Return what the cloud has been asked and is not known to have answered."""
    told = journal.read_text().splitlines() if journal.exists() else []
    return NEITHER if not told or told[-1] == "-" else told[-1]


def _pass(nursery: subprocess.Popen[str], seconds: float) -> None:
    """Let time pass, less if a life has ended by itself."""
    assert nursery.stdout is not None
    select.select([nursery.stdout], [], [], seconds)


def reap(nursery: subprocess.Popen[str]) -> bool:
    """Let one life look after what is left; say whether the store has no open host any more."""
    _begin(nursery, "reap")
    return int(_line(nursery)) == 0


def _begin(nursery: subprocess.Popen[str], what: str) -> int:
    assert nursery.stdin is not None
    nursery.stdin.write(f"{what}\n")
    nursery.stdin.flush()
    return int(_line(nursery))


def _line(nursery: subprocess.Popen[str]) -> str:
    assert nursery.stdout is not None
    line = nursery.stdout.readline()
    assert line, "whoever gives birth has died"
    return line


@contextmanager
def at_aws(directory: Path) -> Iterator[Side]:
    """Open an account at moto's server."""
    with contextmanager(running_moto)() as moto, open_site(moto) as site:
        world = deployed(site, DEPLOYMENT)
        wish = _wish(directory, AWS, site.url, asdict(world.rental), image=site.image)

        def left() -> list[str]:
            hosts = [one["InstanceId"] for one in world.instances()]
            return [*hosts, *builders_at_aws(world.direct, ("pending", "running", "stopping", "stopped"))]

        yield Side(wish, left, lambda: _launched(world.direct), lambda: _image_names(world.direct))


def _image_names(ec2: Any) -> list[str]:  # noqa: ANN401 boto3 makes its classes when it runs
    return [one["Name"] for one in ec2.describe_images(Owners=["self"])["Images"] if "spot-runner:image" in str(one)]


def _launched(ec2: Any) -> list[str]:  # noqa: ANN401 boto3 makes its classes when it runs
    """Return the host of each instance, by its tag; moto remembers the terminated ones."""
    told = [one for some in ec2.describe_instances()["Reservations"] for one in some["Instances"]]
    tags = ({tag["Key"]: tag["Value"] for tag in one.get("Tags", ())} for one in told)
    return [found for one in tags if (found := one.get("spot-runner:host")) is not None]


@contextmanager
def at_hetzner(directory: Path) -> Iterator[Side]:
    """Open a project of the simulator."""
    real = Spans()
    spans = Spans(*(getattr(real, one.name) / HURRY for one in fields(real)))
    simulation = Simulation(Settings((TOKEN,), spans=spans, requests_per_hour=10**6), SystemClock())
    project = simulation.project
    project.stock.servers_max = 1000
    project.add_image("snapshot", "ours", disk_gb=40, labels={"spot-runner/image": "pvm"})
    with answering(simulation.flask) as url:
        wish = _wish(directory, HETZNER, url, {"deployment": DEPLOYMENT, "overlay_port": 51820}, TOKEN)

        def made() -> list[str]:
            servers = (*project.deleted, *project.servers.values())
            return [one.name for one in servers if BUILDER_LABEL not in one.labels]

        def made_images() -> list[str]:
            return [one.description for one in project.images.values() if KEY_LABEL in one.labels]

        yield Side(wish, lambda: [one.name for one in project.servers.values()], made, made_images)


def _wish(directory: Path, cloud: str, url: str, rental: dict[str, Any], token: str = "", image: str = "") -> Wish:
    database = f"sqlite:///{directory / 'store.sqlite'}"
    return Wish(cloud, url, database, str(directory / "journal"), rental, token, image)
