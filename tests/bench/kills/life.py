"""The lives of a control plane: a process that rents hosts and ends them, or makes images, until somebody kills it.

`python -m tests.bench.kills.life SETTINGS`: each line on its input begins a life, whose process id it prints; when that
has ended it prints so. Everything is loaded once, and each life is a fork of it, so that lives are short and many.
"""

from __future__ import annotations

import json
import logging
import os
import random
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import structlog

from tests.bench.kills import images
from tests.contract.aws_cloud import client
from workers.clock import SystemClock
from workers.domain.errors import SpotError
from workers.domain.host import HOST, Host, HostState
from workers.domain.market import ANYWHERE, Sources
from workers.domain.names import HostId, host_id
from workers.domain.runner import Shape
from workers.planning.capacity import CapacityPolicy
from workers.ports import Cloud, Instance
from workers.providers.aws.account import Account as AwsAccount
from workers.providers.aws.cloud import Aws
from workers.providers.aws.requests import Rental as AwsRental
from workers.providers.hetzner.account import Account as HetznerAccount
from workers.providers.hetzner.cloud import Hetzner
from workers.providers.hetzner.requests import Rental as HetznerRental
from workers.reconcilers.capacity import Buyer
from workers.reconcilers.clouds import Clouds, Outages
from workers.reconcilers.hosts import HostPolicy, Hosts
from workers.store.repository import SqlStore, open_store

SPEC: Final = Shape(vcpus=2, memory_mib=2048, disk_mib=4096)
HOSTS_MAX: Final = 8
NAP_S: Final = 0.01
# How many lives make host images instead.
BUILDS: Final = 0.3
AWS, HETZNER = "aws", "hetzner"


@dataclass(frozen=True)
class Wish:
    """Where a life takes place."""

    cloud: str
    url: str
    database: str
    journal: str
    """A file to which each call of the cloud is written before it is made and after it was answered."""
    rental: Mapping[str, Any]
    token: str = ""
    image: str = ""
    """What builders of images boot at EC2."""


class Told:
    """ports.Cloud that writes down what it is about."""

    def __init__(self, cloud: Cloud, journal: Path) -> None:
        self._cloud, self._journal = cloud, os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    @property
    def name(self) -> str:
        return self._cloud.name

    def launch(self, host: HostId, spec: Shape, user_data: Mapping[str, str], sources: Sources = ANYWHERE) -> Instance:
        self._tell("launch")
        try:
            return self._cloud.launch(host, spec, user_data, sources)
        finally:
            self._tell("-")

    def terminate(self, host: HostId) -> None:
        self._tell("terminate")
        try:
            self._cloud.terminate(host)
        finally:
            self._tell("-")

    def describe(self, host: HostId) -> Instance | None:
        return self._cloud.describe(host)

    def owned(self) -> Iterable[Instance]:
        return self._cloud.owned()

    def _tell(self, what: str) -> None:
        os.write(self._journal, f"{what}\n".encode())


def open_images(wish: Wish, dice: random.Random) -> images.Images:
    """Open what makes host images there."""
    journal = os.open(wish.journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def tell(what: str) -> None:
        os.write(journal, f"{what}\n".encode())

    if wish.cloud == AWS:
        return images.AtAws(wish.url, _aws_rental(wish), wish.image, dice, tell)
    return images.AtHetzner(wish.url, wish.token, wish.rental, dice, tell)


def _aws_rental(wish: Wish) -> AwsRental:
    told: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in wish.rental.items()
    }
    return AwsRental(**told)


def open_cloud(wish: Wish) -> Cloud:
    """Open the adapter."""
    if wish.cloud == AWS:
        account = AwsAccount(client("ec2", wish.url), client("service-quotas", wish.url), _aws_rental(wish))
        return Aws(account)
    clock = SystemClock()
    return Hetzner(HetznerAccount.open(HetznerRental(**wish.rental), wish.token, clock, f"{wish.url}/v1"), clock)


class Life:
    """One control plane."""

    def __init__(self, wish: Wish, store: SqlStore) -> None:
        self._wish, self._store, self._clock = wish, store, SystemClock()
        cloud = Told(open_cloud(wish), Path(wish.journal))
        buyer = Buyer(store, self, self._clock, CapacityPolicy(wish.cloud, SPEC, 0, HOSTS_MAX))
        self.hosts = Hosts(store, Clouds([cloud], Outages(self._clock)), self, self._clock, buyer, HostPolicy({}))

    def look_at(self, kind: str, *ids: str) -> None:
        """Keep ports.Hints' promise: a hint may be lost."""

    def live(self, dice: random.Random) -> None:
        """Rent and end until the end."""
        while True:
            if len(self._store.hosts.open()) < HOSTS_MAX:
                self._ask_for_a_host(dice)
            for key in self.hosts.due():
                self._advance(key)
                if dice.random() < 0.5:
                    self._let_go(key)
            if dice.random() < 0.2:
                self.hosts.end_leaked()
            time.sleep(NAP_S)

    def reap(self) -> bool:
        """End everything that there is; say whether no host is left."""
        for key in self.hosts.due():
            self._let_go(key)
            self._advance(key)
        self.hosts.end_leaked()
        return not self._store.hosts.open()

    def _ask_for_a_host(self, dice: random.Random) -> None:
        name = host_id(f"{dice.getrandbits(40):010x}")
        self._store.hosts.add(Host(name, self._wish.cloud, HostState.REQUESTED, self._clock.now(), SPEC))

    def _advance(self, key: HostId) -> None:
        with suppress(SpotError):
            self.hosts.advance(key)

    def _let_go(self, key: HostId) -> None:
        """Say that this host is needed no more, as whoever watches over it would."""
        with suppress(SpotError), self._store.hosts.lease(key) as lease:
            if HostState.TERMINATING in HOST.moves[lease.row.state]:
                lease.write(replace(lease.row, state=HOST.move(lease.row.state, HostState.TERMINATING)))


def opened(wish: Wish) -> tuple[Life, SqlStore]:
    """Begin a life in this process."""
    store = open_store(wish.database, SystemClock())
    return Life(wish, store), store


def main() -> int:
    """Give birth for each line, and say who lives and when it has died."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL)
    )  # what goes wrong is the point
    wish, dice = Wish(**json.loads(sys.argv[1])), random.Random(int(sys.argv[2]))
    for line in sys.stdin:
        seed = dice.getrandbits(32)
        child = os.fork()
        if child == 0:
            if line.strip() == "reap":
                _reap(wish)
            life, _ = opened(wish)
            os.write(sys.stdout.fileno(), f"{os.getpid()}\n".encode())  # only now: what kills it is to meet it at work
            own = random.Random(seed)
            if own.random() < BUILDS:
                images.build(open_images(wish, own), own)
            life.live(own)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()
    return 0


def _reap(wish: Wish) -> None:
    """End everything, and this process; the leases of the dead end by themselves."""
    os.write(sys.stdout.fileno(), f"{os.getpid()}\n".encode())
    life, store = opened(wish)
    images.finish(open_images(wish, random.Random(0)))
    with closing(store):
        end = time.monotonic() + 120
        while not life.reap():
            if time.monotonic() > end:
                os._exit(1)
            time.sleep(0.2)
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
