"""The whole control plane on a fake clock, with everything around it in memory."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import cast

from tests.fakes.beside import AtOnce
from tests.fakes.clock import FakeClock
from tests.fakes.cloud import FakeCloud
from tests.fakes.github import FakeGitHub, RemoteJob
from tests.fakes.github_lists import FakeLists
from tests.fakes.hints import LossyHints
from tests.fakes.hosts import FakeHosts, PlainAuthority
from tests.fakes.objects import MemoryObjects
from tests.fakes.parked import ParkedGuests
from tests.fakes.relay import FakeRelay
from tests.fakes.store import UNDECIDED, MemoryStore
from tests.fakes.trouble import Trouble, WorkerDied
from webhook.words import Words
from workers.bootstrap.recovery import recovery_of
from workers.domain.errors import TryLater
from workers.domain.host import Host, HostState
from workers.domain.installation import EVERYBODY
from workers.domain.job import Rerun
from workers.domain.names import PackageDigest, runner_id
from workers.domain.offer import Assortment, Offer
from workers.domain.pools import Package, Policy, Pool
from workers.domain.runner import RunnerState, Shape
from workers.planning.capacity import CapacityPolicy
from workers.ports import Cloud, Instance
from workers.reconcilers.capacity import Buyer
from workers.reconcilers.clouds import Clouds, Outages
from workers.reconcilers.hosts import HostPolicy, Hosts
from workers.reconcilers.jobs import JobPolicy, Jobs
from workers.reconcilers.migrations import Migrations
from workers.reconcilers.parks import PARK_LIMIT, Parks
from workers.reconcilers.polls import POLL_INTERVAL
from workers.reconcilers.recovery import Recovery
from workers.reconcilers.runners import Runners
from workers.reconcilers.survey import Ours
from workers.reconcilers.sweep import Reconcilers, Sweep

RUNNER = Shape(vcpus=1, memory_mib=1024, disk_mib=4096)
HOST = Shape(vcpus=2, memory_mib=2048, disk_mib=8192)
PACKAGE = Package("debian-12", PackageDigest("sha256:00"), RUNNER)
POLICY = Policy((Pool("default"),), (PACKAGE,))
HEARTBEAT_LIMIT = timedelta(seconds=10)
SWEEP_INTERVAL_S = 15
MARK = "3fa9c2-"
TICK = timedelta(seconds=1)


@dataclass(frozen=True)
class Faults:
    """What goes wrong, and how often."""

    unreachable: float = 0.0
    death: float = 0.0
    hints: float = 0.0
    deliveries: float = 0.0
    hosts: float = 0.0


def _sooner_or_later() -> suppress:
    """What fails or dies on the way is looked at again."""
    return suppress(TryLater, WorkerDied)


class OneCloud(Clouds):
    """One cloud in parts, each with the hosts that a story says are of it."""

    def __init__(self, cloud: FakeCloud, store: MemoryStore, outages: Outages) -> None:
        super().__init__([cloud], outages)
        self._cloud, self._store = cloud, store

    def __iter__(self) -> Iterator[Cloud]:
        for name in sorted({self._cloud.name, *(host.cloud for host in self._store.hosts.rows.values())}):
            yield cast("Cloud", Part(self._cloud, self._store, name))

    def of(self, host: Host) -> Cloud:
        return super().of(replace(host, cloud=self._cloud.name))


class Part:
    """What is of one name in a cloud."""

    def __init__(self, cloud: FakeCloud, store: MemoryStore, name: str) -> None:
        self._cloud, self._store, self.name = cloud, store, name

    def __getattr__(self, call: str) -> object:
        return getattr(self._cloud, call)

    def owned(self) -> list[Instance]:
        rows = self._store.hosts.rows
        names = {key: row.cloud for key, row in rows.items()}
        return [one for one in self._cloud.owned() if names.get(one.host_id, self._cloud.name) == self.name]


class World:
    """Everything, one second at a time."""

    poll_interval = POLL_INTERVAL
    """After which silence GitHub is asked about a job."""
    served = EVERYBODY
    """Whose jobs are served, from the next start of the workers on."""

    def __init__(
        self,
        seed: int = 0,
        faults: Faults | None = None,
        *,
        ready_hosts: int = 0,
        hosts_max: int = 6,
        policy: Policy = POLICY,
        price: float | None = None,
        empties_hosts: bool = False,
    ) -> None:
        self.policy = policy
        self.random = random.Random(seed)
        self.clock = FakeClock()
        self.faults = faults or Faults()
        faults = self.faults
        self.trouble = Trouble(self.clock, self.random, faults.unreachable, faults.death)
        self.wire = Trouble(self.clock, self.random, faults.unreachable, log=self.trouble.log)
        self.trouble.meanwhile = self._meanwhile
        self.store = self.make_store()
        self.hints = LossyHints(self.random, faults.hints)
        self.cloud = FakeCloud(self.clock, self.trouble)
        self.relay = FakeRelay(self.trouble)
        self.github = self.make_github()
        self.lists = self.make_lists()
        self.objects = MemoryObjects(self.trouble)
        words = Words(self.store, PlainAuthority(), self.hints, self.clock, (), self.objects)
        parked = ParkedGuests(words, self.objects, self.wire)
        self.hosts = FakeHosts(self.cloud, self.github, self.relay, self.store, words, self.trouble, self.wire, parked)
        self.hosts.failures = faults.hosts
        self.seconds = 0
        self.offers: tuple[Offer, ...] = ()
        self._capacity = CapacityPolicy("fake", HOST, ready_hosts, hosts_max, price=price, empties_hosts=empties_hosts)
        self.start_workers()

    def make_store(self) -> MemoryStore:
        return MemoryStore(self.clock)

    def make_github(self) -> FakeGitHub:
        return FakeGitHub(self.clock, self.trouble, self.random, self.faults.deliveries)

    def make_lists(self) -> FakeLists:
        return FakeLists(self.github)

    def start_workers(self) -> None:
        """Start every worker, or start them again: what they had only in their memory is forgotten."""
        store, hints, clock, capacity = self.store, self.hints, self.clock, self._capacity
        buyer = Buyer(store, hints, clock, capacity, lambda: self.policy, lambda: Assortment(self.offers))
        job_policy = JobPolicy(
            lambda: self.policy, HEARTBEAT_LIMIT, 600, PARK_LIMIT, self.poll_interval, self.served, runner_id(MARK)
        )
        clouds = OneCloud(self.cloud, store, Outages(clock))
        host_policy = HostPolicy({"control_url": "https://control"})
        self.reconcilers = Reconcilers(
            jobs=Jobs(store, self.github, hints, clock, buyer, job_policy, self._token),
            runners=Runners(store, self.hosts, self.github, self.relay, hints, clock, AtOnce(), PARK_LIMIT),
            hosts=Hosts(store, clouds, hints, clock, buyer, host_policy, self._token),
            migrations=Migrations(store, self.hosts, self.relay, hints, clock),
            parks=Parks(store, self.objects, hints, clock, buyer, PARK_LIMIT, self._token),
            recovery=self._recovery(),
        )
        self._sweep = Sweep(store, self.relay, hints, buyer, self.reconcilers)

    def _recovery(self) -> Recovery:
        ours = Ours(runner_id(MARK), self._may_share, self.served)
        return recovery_of(self.store, self.github, self.lists, self.hosts, self.hints, self.clock, ours)

    def _may_share(self, repository: str) -> bool:
        return self.policy.may_share(repository)

    def _token(self) -> str:
        return f"{MARK}{self.random.getrandbits(40):010x}"

    # ------------------------------------------------------------ time

    def tick(self, seconds: int = 1) -> None:
        """Let one second pass, or several at once where nothing depends on any single one."""
        self.clock.move(TICK * seconds)
        before, self.seconds = self.seconds, self.seconds + seconds
        self.cloud.pass_time()
        self.hosts.pass_time()
        self.check()
        self.github.pass_time()
        self.receive()
        self._work(sweeps=before // SWEEP_INTERVAL_S != self.seconds // SWEEP_INTERVAL_S)
        self.check()

    def until(self, reached: Callable[[], bool], limit: timedelta, seconds: int = 1) -> None:
        """Let time pass until this is so."""
        end = self.clock.now() + limit
        while not reached():
            assert self.clock.now() < end, f"not reached within {limit}\n{self.sight()}"
            self.tick(seconds)

    def receive(self) -> None:
        for delivery in self.github.arrived():
            self.store.write_deliveries([delivery])
            if delivery.fact is not None:
                self.hints.look_at("job", str(delivery.fact.job_id))

    def _work(self, *, sweeps: bool) -> None:
        """A moment of the workers: the watch, every fifteen seconds the sweep, and what was hinted at."""
        self._advance_all(list(self._sweep.urgent()))
        if sweeps:
            with _sooner_or_later():
                self._sweep.refresh()
            self._advance_all(self._everything())
        for _ in range(4):  # a hint leads to the next one well within a second
            self._advance_all(list(self.hints.taken()))

    def _everything(self) -> list[tuple[str, str]]:
        due = self.reconcilers
        recovery = list(due.recovery.due()) if due.recovery else []
        kinds = {"job": due.jobs.due(), "runner": due.runners.due(), "host": due.hosts.due()}
        kinds["remark"] = due.jobs.answers.due()
        return [*recovery, *((kind, str(key)) for kind, keys in kinds.items() for key in keys)]

    def _advance_all(self, rows: list[tuple[str, str]]) -> None:
        for kind, key in rows:
            self.look_at(kind, key)

    def look_at(self, kind: str, key: str) -> None:
        """Let a worker look at one row."""
        with _sooner_or_later():
            self.reconcilers.look_at(kind, key)

    def _meanwhile(self) -> None:
        """What others do while a worker waits for an answer."""
        match self.random.randrange(3):
            case 0:
                self.hosts.pass_time()
            case 1:
                self.receive()
                self._advance_all(list(self.hints.taken())[:3])
            case _:
                everything = self._everything()
                self._advance_all(self.random.sample(everything, min(3, len(everything))))

    # ------------------------------------------------------------ what must always be so

    def check(self) -> None:
        """Check what must be so at every moment."""
        undecided = [row.runner_id for row in self.store.migrations.open() if row.phase in UNDECIDED]
        assert len(undecided) == len(set(undecided)), "a runner has two open migrations"
        numbers = [row.number for row in self.store.runners.open()]
        assert len(numbers) == len(set(numbers)), "two runners have one number"
        ended = [row.id for row in self.store.hosts.rows.values() if row.state is HostState.TERMINATED]
        assert not any(self.cloud.is_alive(host_id) for host_id in ended), "a host that is called terminated still runs"
        running = self.hosts.running()
        assert len(running) == len(set(running)), "a guest runs on two hosts"
        self.check_relay()

    def check_relay(self) -> None:
        """Check that the relay is never ahead of the rows."""
        for runner in self.store.runners.rows.values():
            entry = self.relay.table.get(runner.id)
            assert entry is None or entry.epoch <= runner.epoch, "the relay knows an epoch that never was"

    def is_quiet(self) -> bool:
        """Say whether everything that was asked for is done and put away."""
        return (
            all(job.status == "completed" for job in self.github.jobs.values())
            and all(
                job.conclusion in {"success", "cancelled"} or self._is_over(job) for job in self.github.jobs.values()
            )
            and not self.store.jobs.open()
            and not self.store.runners.open()
            and not self.store.migrations.open()
        )

    def _is_over(self, job: RemoteJob) -> bool:
        """Say whether a job that has failed was run again, or not because nobody can say whether it deploys."""
        row = self.store.jobs.rows.get(job.id)
        is_given_up = row is not None and row.rerun is Rerun.REFUSED and row.has_deployment is None
        return is_given_up or job.attempt < self.github.attempt_of(job.run_id)

    def calm_down(self) -> None:
        """From now on nothing goes wrong."""
        self.trouble.end()
        self.wire.end()
        self.hints.loss = self.github.loss = self.hosts.failures = 0.0

    def is_given_back(self) -> bool:
        """Say whether no machine is paid for, and whoever forgets at its own pace has forgotten."""
        is_forgotten = not self.github.runners and not self.relay.table
        return not self.cloud.alive() and not self.store.hosts.open() and is_forgotten

    def check_nothing_is_left(self) -> None:
        """Check what must be so once everything is done."""
        open_hosts = {host.id for host in self.store.hosts.open()}
        assert {instance.host_id for instance in self.cloud.owned()} <= open_hosts, "an instance is leaked"
        assert not self.github.runners, "a registration is leaked"
        assert not self.relay.table, "the relay still knows a runner"
        assert not self.objects.contents, "parked guests are leaked"
        assert not any(row.key for row in self.store.migrations.rows.values()), "a park's key is still there"
        assert not self.hosts.kept(), f"microVMs are leaked: {self.hosts.kept()}"
        assert all(row.state is RunnerState.GONE for row in self.store.runners.rows.values())

    def sight(self) -> str:
        """Show what is open, for whoever must find out why."""
        shelves = (self.store.jobs, self.store.runners, self.store.hosts, self.store.migrations)
        rows = [str(row) for shelf in shelves for row in shelf.open()]
        happened = [
            f"{event.at:%H:%M:%S} {event.happening} {event.runner_id} {event.host_id} {dict(event.detail)}"
            for _, event in self.store.timeline()
        ]
        return "\n".join([*happened[-60:], *rows, *(str(job) for job in self.github.jobs.values())])
