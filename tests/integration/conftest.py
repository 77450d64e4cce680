"""What both of the receiver's apps are tried with: a store, an authority, a clock that stands still, hints."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.contract.store_rows import ManualClock
from tests.integration.listeners import HeardHints, HostCaller
from workers.identity import Authority
from workers.store.repository import SqlStore, open_store


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(tmp_path: Path, clock: ManualClock) -> Iterator[SqlStore]:
    opened = open_store(f"sqlite:///{tmp_path / 'store.sqlite'}", clock, lease_wait=timedelta(milliseconds=200))
    yield opened
    opened.close()


@pytest.fixture
def hints() -> HeardHints:
    return HeardHints()


@pytest.fixture
def authority(tmp_path: Path, clock: ManualClock) -> Authority:
    return Authority.open(tmp_path / "ca", clock)


@pytest.fixture
def caller(store: SqlStore, authority: Authority, hints: HeardHints, clock: ManualClock) -> HostCaller:
    return HostCaller(store, authority, hints, clock)
