"""A host that the control plane has forgotten ends itself, and never what somebody may still need."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.domain.errors import TryLater
from workers.domain.host import POWERED_OFF
from workers.domain.messages import GuestRunnerState, MonitorState, RunnerReport
from workers.domain.names import RunnerId
from workers.host.dead_man import DeadMan, power_off_daemon
from workers.host.silence import JOB_LIMIT, SILENCE_LIMIT, PowerOff, Stop, steps

G, M = GuestRunnerState, MonitorState
LONG = SILENCE_LIMIT


def report(name: str = "r", guest: GuestRunnerState = G.RUNNING, monitor: MonitorState = M.RUNNING) -> RunnerReport:
    return RunnerReport(RunnerId(name), 3, monitor, guest)


def decided(*reports: RunnerReport, silent_for: timedelta = LONG, moving: tuple[str, ...] = ()) -> object:
    return steps(reports, {RunnerId(name) for name in moving}, silent_for, SILENCE_LIMIT)


STOP = (Stop(RunnerId("r"), 3),)


def test_nothing_is_done_before_the_limit() -> None:
    assert decided(silent_for=LONG - timedelta(seconds=1)) == ()
    assert decided(report(guest=G.WAITING), silent_for=LONG - timedelta(seconds=1)) == ()


def test_a_host_without_guests_powers_off() -> None:
    assert decided() == PowerOff()


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (report(guest=G.WAITING), STOP),
        (report(guest=G.ENDED), STOP),
        (report(guest=G.RUNNING, monitor=M.GONE), STOP),
        (report(guest=G.RUNNING), ()),
        (report(guest=G.UNKNOWN), ()),
    ],
)
def test_what_has_no_job_is_stopped_and_what_may_have_one_goes_on(one: RunnerReport, expected: object) -> None:
    assert decided(one) == expected


@pytest.mark.parametrize("monitor", [M.PAUSED, M.INCOMING])
@pytest.mark.parametrize("guest", list(G))
def test_a_guest_that_stands_still_is_left_alone_however_long(monitor: MonitorState, guest: GuestRunnerState) -> None:
    for silent_for in (LONG, LONG + 2 * JOB_LIMIT):
        assert decided(report(guest=guest, monitor=monitor), silent_for=silent_for) == ()


def test_a_guest_in_a_migration_is_left_alone_and_keeps_the_machine_on() -> None:
    for guest in G:
        assert decided(report(guest=guest), moving=("r",), silent_for=LONG + 2 * JOB_LIMIT) == ()
    assert decided(moving=("r",)) == ()


def test_no_job_lasts_longer_than_github_lets_it() -> None:
    assert decided(report(), silent_for=LONG + JOB_LIMIT) == STOP


REPORTS = st.lists(
    st.builds(report, st.sampled_from("abc"), st.sampled_from(list(G)), st.sampled_from(list(M))), max_size=5
)


@given(REPORTS, st.sets(st.sampled_from("abc").map(RunnerId)), st.integers(0, 10**7))
def test_whatever_runs_here(reports: list[RunnerReport], moving: set[RunnerId], silent_s: int) -> None:
    found = steps(reports, moving, timedelta(seconds=silent_s), SILENCE_LIMIT)
    if isinstance(found, PowerOff):
        assert not reports
        assert not moving
        return
    stopped = {(one.runner_id, one.epoch) for one in found}
    assert not stopped or silent_s >= SILENCE_LIMIT.total_seconds()
    assert not {name for name, _ in stopped} & moving
    for name in {name for name, _ in stopped}:
        mine = [one for one in reports if one.runner_id == name]
        assert any(one.monitor in {M.RUNNING, M.GONE} for one in mine), "it stands still"
        if silent_s < (SILENCE_LIMIT + JOB_LIMIT).total_seconds():
            assert any(one.monitor is M.GONE or one.guest in {G.WAITING, G.ENDED} for one in mine), "it may have a job"


# ---------------------------------------------------------------- carried out


@dataclass
class Guests:
    """An engine with nothing behind it."""

    here: dict[RunnerId, RunnerReport] = field(default_factory=dict)
    refuses: set[RunnerId] = field(default_factory=set)
    on_their_way: frozenset[RunnerId] = frozenset()

    def reports(self) -> tuple[RunnerReport, ...]:
        return tuple(self.here.values())

    def moving(self) -> frozenset[RunnerId]:
        return self.on_their_way

    async def stop(self, runner_id: RunnerId, epoch: int) -> None:
        assert self.here[runner_id].epoch == epoch
        if runner_id in self.refuses:
            raise TryLater(f"{runner_id} is being moved")
        del self.here[runner_id]


class Machine:
    """A clock to be moved by hand, and whether the machine is still on."""

    def __init__(self, *reports: RunnerReport) -> None:
        self.at = 1000.0
        self.offs = 0
        self.guests = Guests({one.runner_id: one for one in reports})
        self.switch = DeadMan(self.guests, self._off, SILENCE_LIMIT, lambda: self.at)

    def _off(self) -> None:
        self.offs += 1

    def after(self, span: timedelta) -> Machine:
        self.at += span.total_seconds()
        asyncio.run(self.switch.look())
        return self


MINUTE = timedelta(minutes=1)


def test_idle_ones_are_stopped_first_jobs_finish_and_then_the_machine_goes() -> None:
    machine = Machine(report("idle", G.WAITING), report("job"))
    machine.after(14 * MINUTE)
    assert set(machine.guests.here) == {"idle", "job"}
    machine.after(MINUTE)
    assert (set(machine.guests.here), machine.offs) == ({"job"}, 0)
    machine.after(10 * MINUTE)
    assert (set(machine.guests.here), machine.offs) == ({"job"}, 0)
    machine.guests.here[RunnerId("job")] = report("job", G.ENDED)
    machine.after(MINUTE)
    assert (set(machine.guests.here), machine.offs) == (set(), 0)
    machine.after(MINUTE)
    assert machine.offs == 1


def test_one_answer_ends_the_silence() -> None:
    machine = Machine(report("idle", G.WAITING)).after(14 * MINUTE)
    machine.switch.hear()
    machine.after(14 * MINUTE)
    assert set(machine.guests.here) == {"idle"}
    machine.after(MINUTE)
    assert not machine.guests.here


def test_the_control_plane_is_lost_during_a_migration_and_nothing_is_done_to_that_guest() -> None:
    for one in (report("moved", monitor=M.PAUSED), report("moved", monitor=M.INCOMING), report("moved", G.ENDED)):
        machine = Machine(one)
        machine.guests.on_their_way = frozenset({RunnerId("moved")})
        machine.after(15 * MINUTE).after(24 * 60 * MINUTE)
        assert (set(machine.guests.here), machine.offs) == ({"moved"}, 0)


def test_what_cannot_be_stopped_keeps_nothing_else_from_it() -> None:
    machine = Machine(report("stuck", G.ENDED), report("idle", G.WAITING))
    machine.guests.refuses = {RunnerId("stuck")}
    machine.after(15 * MINUTE)
    assert (set(machine.guests.here), machine.offs) == ({"stuck"}, 0)


def test_a_daemon_that_stands_for_its_machine_ends_with_the_status_that_says_so() -> None:
    with pytest.raises(SystemExit) as ended:
        power_off_daemon()
    assert ended.value.code == POWERED_OFF
