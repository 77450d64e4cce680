"""The world of the simulation with the production receiver, store (SQLite) and adapter, and the GitHub simulator."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, cast

from sqlalchemy import select

from tests.fakes.clock import FakeClock
from tests.fakes.github import FakeGitHub
from tests.fakes.github_lists import FakeLists
from tests.fakes.store import AnyRow, MemoryStore
from tests.fakes.world import World
from tests.integration.listeners import SECRET, signed
from tests.simulation.post import StoryPost
from tests.simulation.simulated_github import SimulatedGitHub
from webhook.app import create_public_app
from workers.domain.events import Event
from workers.domain.runner import Quota
from workers.ports import Clock
from workers.rehearsal.github.records import Violation
from workers.store.connection import Database
from workers.store.repository import SqlStore, open_store
from workers.store.rows import HOSTS, JOBS, MIGRATIONS, RUNNERS, Kind
from workers.store.shelves import SqlShelf

ACCEPTED = 202


class ToldLease:
    """A lease that tells of the rows that it inserts."""

    def __init__(self, lease: Any, inserted: Callable[[AnyRow], object]) -> None:  # noqa: ANN401 - on a row of any kind
        self._lease, self._inserted = lease, inserted

    @property
    def row(self) -> Any:  # noqa: ANN401
        return self._lease.row

    def write(self, row: AnyRow, *also: AnyRow | Event | Quota) -> None:
        self._lease.write(row, *also)
        for one in also:
            if not isinstance(one, Event | Quota):
                self._inserted(one)


class ToldShelf(SqlShelf[Any, Any]):
    """A shelf that shows all of its rows, and tells of new ones."""

    def __init__(self, store: RealStore, database: Database, kind: Kind[Any], clock: Clock) -> None:
        super().__init__(database, kind, clock, timedelta())
        self._store, self._all = store, kind

    @property
    def rows(self) -> Mapping[Any, Any]:
        with self._database.reading() as connection:
            found = [self._all.row(columns) for columns in connection.execute(select(self._all.table)).mappings()]
        return {row.id: row for row in found}

    def is_leased(self, key: Any) -> bool:  # noqa: ANN401 - of any kind
        columns = self._all.table.c
        mine = select(columns.id).where(columns.id == key, columns.lease_until >= self._clock.now())
        with self._database.reading() as connection:
            return connection.execute(mine).first() is not None

    @contextmanager
    def lease(self, key: Any) -> Iterator[Any]:  # noqa: ANN401 - of any kind
        with super().lease(key) as lease:
            yield ToldLease(lease, self._store.inserted)


class RealStore(SqlStore):
    """The production store, in a file of its own, with what the story asks of the one in memory."""

    def __init__(self, directory: Path, clock: Clock) -> None:
        file = shutil.copy(empty_store(), directory / "store.sqlite")
        database = Database(f"sqlite:///{file}")
        super().__init__(database, clock)
        self.inserted: Callable[[AnyRow], object] = lambda _: None
        self.jobs = ToldShelf(self, database, JOBS, clock)
        self.runners = ToldShelf(self, database, RUNNERS, clock)
        self.hosts = ToldShelf(self, database, HOSTS, clock)
        self.migrations = ToldShelf(self, database, MIGRATIONS, clock)


@cache
def empty_store() -> Path:
    """Make the tables once; each story gets a copy."""
    file = Path(tempfile.mkdtemp(prefix="spot-runner-story-")) / "store.sqlite"
    open_store(f"sqlite:///{file}", FakeClock()).close()
    return file


class RealWorld(World):
    """A world whose deliveries are posted to the production app, which writes them into the production store."""

    def __init__(self, seed: int, **more: Any) -> None:  # noqa: ANN401 - what a world takes
        self._directory = Path(tempfile.mkdtemp(prefix="spot-runner-story-"))
        super().__init__(seed, **more)
        store = cast("SqlStore", self.store)
        self._client = create_public_app(store, self.hints, self.clock, [SECRET]).test_client()

    def make_store(self) -> MemoryStore:
        # It has all that is asked of the one in memory, by whoever asks here.
        return cast("MemoryStore", RealStore(self._directory, self.clock))

    def make_github(self) -> FakeGitHub:
        # So has this, of which the fake is the shorter version.
        return cast("FakeGitHub", SimulatedGitHub(self.clock, self.trouble, self.random))

    def make_lists(self) -> FakeLists:
        return cast("FakeLists", cast("SimulatedGitHub", self.github).lists)

    def receive(self) -> None:
        post = self.github.carrier
        assert isinstance(post, StoryPost)
        for letter in post.letters(self.clock.now()):
            _, headers = signed("workflow_job", letter.body, letter.guid)
            assert self._client.post("/github", data=letter.body, headers=headers).status_code == ACCEPTED

    def violations(self) -> Sequence[Violation]:
        """Return what broke GitHub's published contract."""
        return cast("SimulatedGitHub", self.github).world.violations

    def close(self) -> None:
        cast("SqlStore", self.store).close()
        shutil.rmtree(self._directory)


def real_world(seed: int, **more: Any) -> tuple[RealWorld, StoryPost]:  # noqa: ANN401 - what a world takes
    """Return a world with the post that brings its deliveries."""
    world = RealWorld(seed, **more)
    post = world.github.carrier = StoryPost(world.clock, random.Random(seed))
    return world, post
