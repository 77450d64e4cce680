"""Migrations of real guests between two real engines, with everything going wrong at the worst moment."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from tests.e2e.busy_guest import busy_script
from tests.e2e.engine_rig import END_OF_MOVE, EngineHost, Rig, eventually, runner_package
from tests.e2e.scripted_guest import scripted_package
from workers.domain.errors import Refused, TryLater
from workers.domain.messages import BootOrder, GuestRunnerState, MonitorState, StartOrder
from workers.domain.migration import SEEN_LIMIT, Migration, MigrationPhase, Said
from workers.host.processes import process_name

pytestmark = [pytest.mark.root, pytest.mark.guest, pytest.mark.timeout(600)]
PAUSED, COMMITTED = MigrationPhase.PAUSED, MigrationPhase.COMMITTED
FINISHED, ABORTED = MigrationPhase.FINISHED, MigrationPhase.ABORTED


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    rig = Rig(scripted_package(runner_package()), ("a", "b"))
    yield rig
    rig.end()


@pytest.fixture
def order(rig: Rig, request: pytest.FixtureRequest) -> Iterator[BootOrder]:
    """A guest on host a; each test its own runner, since one that is gone stays gone."""
    order = rig.order(200 + request.session.items.index(request.node))
    rig["a"].inside.run(rig["a"].engine.boot(order))
    yield order
    _mend(rig)
    for row in rig.rows.of(order.runner_id):
        if row.phase not in END_OF_MOVE | {COMMITTED}:
            rig.rows.abort(row.id)
    rig.settle(order.runner_id)
    for host in rig.hosts.values():
        report = host.report(order.runner_id)
        host.inside.run(host.engine.stop(order.runner_id, report.epoch if report else 9))


def _mend(rig: Rig) -> None:
    for trouble in (rig.rows.lost, rig.rows.unanswered, rig.rows.deaf):
        trouble.clear()


def _is_answering(host: EngineHost, order: BootOrder) -> bool:
    return bool(host.call(order.runner_id, "RunnerStatus"))


def _runs_alone_on(rig: Rig, name: str, order: BootOrder, epoch: int) -> None:
    rig.settle(order.runner_id)
    report = rig[name].report(order.runner_id)
    assert report is not None
    assert (report.monitor, report.epoch) == (MonitorState.RUNNING, epoch)
    assert all(host.report(order.runner_id) is None for other, host in rig.hosts.items() if other != name)
    assert _is_answering(rig[name], order)


def test_a_busy_guest_moves_there_and_back_and_loses_nothing(rig: Rig, order: BootOrder) -> None:
    work = {"seconds": 20.0, "memory_mib": 16, "disk_mib": 48}
    rig["a"].inside.run(rig["a"].engine.start_runner(order.runner_id, StartOrder(1, busy_script(**work))))
    for source, target, attempt in (("a", "b", 1), ("b", "a", 2)):
        row = rig.begin(order, source, target, attempt)
        assert rig.rows.wait(row.id, *END_OF_MOVE).phase is FINISHED
        rig.settle(order.runner_id)
        order = replace(order, epoch=row.epoch)
    assert rig["a"].wait_ended(order.runner_id) == 0
    figures = rig.rows.figures
    assert figures["stopped_at"] <= figures["completed_at"] <= figures["resumed_at"]
    assert figures["memory_mib_sent"] > 16
    assert figures["disk_mib_sent"] > 1
    _runs_alone_on(rig, "a", order, 3)


def test_nothing_is_left_at_the_source(rig: Rig, order: BootOrder) -> None:
    microvm, name = rig["a"].microvm(order.runner_id), rig["a"].microvm(order.runner_id).qemu.name
    row = rig.begin(order, "a", "b")
    assert rig.rows.wait(row.id, *END_OF_MOVE).phase is FINISHED
    _runs_alone_on(rig, "b", order, 2)
    assert process_name(name.pid) != name
    assert not microvm.directory.exists()
    with pytest.raises(Refused, match="old"):
        rig["a"].inside.run(rig["a"].engine.boot(order))


def test_the_target_dies_while_memory_is_copied(rig: Rig, order: BootOrder) -> None:
    row = rig.begin(order, "a", "b")
    os.kill(rig["b"].pid(order.runner_id), signal.SIGKILL)
    assert rig.rows.wait(row.id, *END_OF_MOVE).phase is ABORTED
    _runs_alone_on(rig, "a", order, 1)
    again = rig.begin(order, "a", "b", 2)
    assert rig.rows.wait(again.id, *END_OF_MOVE).phase is FINISHED
    _runs_alone_on(rig, "b", order, 2)


def _paused(rig: Rig, order: BootOrder) -> Migration:
    """Bring a migration to PAUSED and keep it there: the target's word is lost."""
    rig.rows.lost.add(Said.COMMITTED)
    row = rig.begin(order, "a", "b")
    rig.rows.wait(row.id, PAUSED)
    return row


def test_the_target_dies_before_the_commit_and_the_source_takes_back(rig: Rig, order: BootOrder) -> None:
    row = _paused(rig, order)
    rig.rows.lost.add(Said.ABORTED)
    os.kill(rig["b"].pid(order.runner_id), signal.SIGKILL)
    report = rig["a"].report(order.runner_id)
    assert report is not None
    assert report.monitor is MonitorState.PAUSED, "it must not resume before it has read ABORTED"
    rig.rows.abort(row.id)
    _mend(rig)
    _runs_alone_on(rig, "a", order, 1)


@pytest.mark.parametrize("restarted", ["a", "b", "ab"])
def test_daemons_restarted_while_the_guest_stands_still(rig: Rig, order: BootOrder, restarted: str) -> None:
    row = _paused(rig, order)
    for name in restarted:
        rig[name].restart()
    _mend(rig)
    assert rig.rows.wait(row.id, *END_OF_MOVE).phase is FINISHED
    _runs_alone_on(rig, "b", order, 2)


def test_the_source_restarted_while_it_stands_still_takes_back_what_was_aborted(rig: Rig, order: BootOrder) -> None:
    row = _paused(rig, order)
    rig["a"].let_go()
    rig.rows.abort(row.id)
    _mend(rig)
    rig["a"].take_up()
    _runs_alone_on(rig, "a", order, 1)


def test_the_target_restarted_after_a_commit_whose_answer_was_lost(rig: Rig, order: BootOrder) -> None:
    rig.rows.unanswered.add(Said.COMMITTED)
    row = rig.begin(order, "a", "b")
    rig.rows.wait(row.id, COMMITTED)
    assert rig.rows.get(row.id).running_at is None
    rig["b"].restart()
    _mend(rig)
    rig.rows.wait(row.id, FINISHED)
    _runs_alone_on(rig, "b", order, 2)


def test_the_source_restarted_after_the_commit_wipes(rig: Rig, order: BootOrder) -> None:
    row = _paused(rig, order)
    rig.rows.deaf.add(rig["a"].id)
    rig.rows.lost.clear()
    rig.rows.wait(row.id, COMMITTED)
    rig["a"].restart()
    report = rig["a"].report(order.runner_id)
    assert report is not None
    assert report.monitor is MonitorState.PAUSED, "it must not act before it has read the row"
    _mend(rig)
    rig.rows.wait(row.id, FINISHED)
    _runs_alone_on(rig, "b", order, 2)


def test_a_target_that_is_cut_off_loses_the_move_but_not_the_guest(rig: Rig, order: BootOrder) -> None:
    """Both must have reached the row within the last second before anybody pauses."""
    rig.rows.words.clear()
    row = rig.listen(order, "a", "b")
    rig.rows.deaf.add(rig["b"].id)
    eventually(lambda: _is_silent(rig, row), "the target has not reached the row for a second")
    rig.send(order, row)
    assert rig.rows.wait(row.id, *END_OF_MOVE).phase is ABORTED
    assert (rig["a"].id, Said.PAUSED) not in rig.rows.words
    _mend(rig)
    _runs_alone_on(rig, "a", order, 1)


def _is_silent(rig: Rig, row: Migration) -> bool:
    seen_at = rig.rows.get(row.id).target_seen_at
    return seen_at is not None and datetime.now(UTC) - seen_at > SEEN_LIMIT


def test_a_target_that_takes_nothing_any_more_is_given_up(rig: Rig, order: BootOrder) -> None:
    """Its QEMU stands still with both connections open, as if its host had vanished."""
    work = {"seconds": 5.0, "memory_mib": 8, "disk_mib": 8}
    rig["a"].inside.run(rig["a"].engine.start_runner(order.runner_id, StartOrder(1, busy_script(**work))))
    row = rig.begin(order, "a", "b")
    stopped = rig["b"].pid(order.runner_id)
    os.kill(stopped, signal.SIGSTOP)
    try:
        assert rig.rows.wait(row.id, *END_OF_MOVE).phase is ABORTED
        assert rig["a"].wait_ended(order.runner_id) == 0
    finally:
        with suppress(ProcessLookupError):  # wiped already, as it should be
            os.kill(stopped, signal.SIGKILL)
    _runs_alone_on(rig, "a", order, 1)


def test_no_time_left_means_no_move(rig: Rig, order: BootOrder) -> None:
    row = rig.begin(order, "a", "b", seconds=0.5)
    assert rig.rows.wait(row.id, *END_OF_MOVE).phase is ABORTED
    _runs_alone_on(rig, "a", order, 1)


def test_stop_waits_for_the_decision(rig: Rig, order: BootOrder) -> None:
    row = _paused(rig, order)
    for name, epoch in (("a", 1), ("b", 2)):
        with pytest.raises(TryLater, match="not decided"):
            rig[name].inside.run(rig[name].engine.stop(order.runner_id, epoch))
    _mend(rig)
    rig.rows.wait(row.id, FINISHED)


def test_orders_are_harmless_when_repeated(rig: Rig, order: BootOrder) -> None:
    row = _paused(rig, order)
    ports = rig.rows.get(row.id).ports
    receive = replace(rig.move_order(order, row, rig["a"]), ports=None)
    assert rig["b"].inside.run(rig["b"].engine.receive(receive)) == ports
    send = replace(rig.move_order(order, row, rig["b"]), ports=ports)
    rig["a"].inside.run(rig["a"].engine.send(send))
    _mend(rig)
    rig.rows.wait(row.id, FINISHED)
    _runs_alone_on(rig, "b", order, 2)


def test_a_migration_at_a_wrong_epoch_is_refused(rig: Rig, order: BootOrder) -> None:
    late = replace(order, epoch=4)
    row = rig.plan(late, "a", "b")
    with pytest.raises(Refused, match="epoch"):
        rig["a"].inside.run(rig["a"].engine.send(rig.move_order(late, row, rig["b"])))


def test_what_the_guest_says_of_its_program_comes_along(rig: Rig, order: BootOrder) -> None:
    work = {"seconds": 3.0, "memory_mib": 1, "disk_mib": 1}
    rig["a"].inside.run(rig["a"].engine.start_runner(order.runner_id, StartOrder(1, busy_script(**work))))
    row = rig.begin(order, "a", "b")
    rig.rows.wait(row.id, FINISHED)
    assert rig["b"].wait_ended(order.runner_id) == 0
    report = eventually(lambda: rig["b"].report(order.runner_id), "host b reports it")
    assert report is not None
    assert report.guest is GuestRunnerState.ENDED
