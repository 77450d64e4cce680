"""What the clouds' rehearsal says of money and time, checked by hand on made-up facts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from workers.domain.events import Event, Happening
from workers.domain.host import Host, HostState
from workers.domain.names import HostId
from workers.domain.runner import Shape
from workers.domain.whereabouts import Machine
from workers.rehearsal.clouds.bill import Rented, bill
from workers.rehearsal.clouds.costs import GITHUB_USD_PER_MINUTE, Stay, ec2_bill, hetzner_bill, job_cost

BEGIN = 1_800_000_000.0
SOURCE, TARGET = HostId("spot-host-a"), HostId("spot-host-b")
SPEC = Shape(vcpus=8, memory_mib=16384, disk_mib=65536)


def event(happening: Happening, after_s: float, host: HostId | None = None, **detail: str) -> Event:
    return Event(happening, datetime.fromtimestamp(BEGIN + after_s, UTC), host_id=host, detail=detail)


def host(name: HostId, cloud: str, machine: Machine) -> Host:
    at = datetime.fromtimestamp(BEGIN - 60, UTC)
    return Host(name, cloud, HostState.READY, at, SPEC, instance_id=f"of-{name}", machine=machine)


def taken_back(one: Host, after_s: float) -> Host:
    return replace(one, deadline_at=datetime.fromtimestamp(BEGIN + after_s, UTC))


EVENTS = (
    event(Happening.HOST_LAUNCHED, -40, SOURCE),
    event(Happening.HOST_NOTICE, 36, SOURCE),
    event(Happening.HOST_NOTICE, 36.25, SOURCE, by="event"),
    event(Happening.HOST_REQUESTED, 36.5, TARGET),
    event(Happening.LAUNCH_REFUSED, 37, TARGET, because="InsufficientInstanceCapacity"),
    event(Happening.HOST_LAUNCHED, 38, TARGET),
    event(Happening.HOST_READY, 60, TARGET),
    event(Happening.MIGRATION_PLANNED, 61, SOURCE),
    event(Happening.MIGRATION_COMMITTED, 71, TARGET),
    event(Happening.MIGRATION_RUNNING, 72, TARGET),
    event(Happening.HOST_TERMINATED, 80, SOURCE),
)


def rented(events: Sequence[Event] = EVENTS) -> Rented:
    aws = Machine("eu-central-1", "eu-central-1a", "m8i.2xlarge", "spot", usd_per_hour=0.16)
    hetzner = Machine("eu-central", "nbg1", "ccx43", "on-demand", usd_per_hour=0.2)
    return Rented(
        shape=Shape(vcpus=1, memory_mib=1024, disk_mib=4096),
        hosts={SOURCE: taken_back(host(SOURCE, "aws", aws), 156), TARGET: host(TARGET, "hetzner", hetzner)},
        events=events,
        stays=((SOURCE, BEGIN), (TARGET, BEGIN + 72)),
        ended_at=BEGIN + 144,
        taken_back=SOURCE,
        full_prices={"m8i.2xlarge": 0.5},
        now=BEGIN + 200,
        events_taken=1,
    )


def test_a_job_pays_for_its_part_of_each_host_as_long_as_it_was_there() -> None:
    job = bill(rented())["job"]
    # An eighth of either host, 72 s on each.
    assert job["usd"] == pytest.approx((0.16 + 0.2) / 8 * 72 / 3600, abs=1e-6)
    assert job["on_demand_usd"] == pytest.approx(0.5 / 8 * 144 / 3600, abs=1e-6)
    assert (job["github_minutes"], job["github_usd"]) == (3, pytest.approx(3 * GITHUB_USD_PER_MINUTE))
    assert (job["seconds"], job["on"]) == (144.0, [SOURCE, TARGET])


def test_a_job_that_stayed_pays_for_one_host_only() -> None:
    job = bill(replace(rented(), stays=((SOURCE, BEGIN),)))["job"]
    assert job["usd"] == pytest.approx(0.16 / 8 * 144 / 3600, abs=1e-6)


def test_hosts_are_billed_as_their_clouds_count() -> None:
    seen = rented()
    hosts = bill(seen)["hosts"]
    assert hosts[SOURCE]["rented_s"] == 120.0
    assert hosts[SOURCE]["billed_usd"] == pytest.approx(0.16 * 120 / 3600, abs=1e-4), "given back before its deadline"
    assert (hosts[TARGET]["rented_s"], hosts[TARGET]["billed_usd"]) == (162.0, 0.2), "an hour was begun"
    source = taken_back(seen.hosts[SOURCE], 80)
    taken = bill(replace(seen, hosts={**seen.hosts, SOURCE: source}))["hosts"][SOURCE]
    assert taken["billed_usd"] == 0.0, "EC2 has ended it in its first hour"


def test_every_stage_counts_from_the_first_notice() -> None:
    told = bill(rented())
    assert told["since_notice_s"] == {
        "target_wanted": 0.5,
        "target_launched": 2.0,
        "target_ready": 24.0,
        "move_planned": 25.0,
        "committed": 35.0,
        "guest_runs": 36.0,
        "source_gone": 44.0,
    }
    assert told["notices"] == [{"by": "metadata", "after_s": 0.0}, {"by": "event", "after_s": 0.25}]
    assert told["refused"] == ["InsufficientInstanceCapacity"]


def test_a_job_that_did_not_move_has_no_stages() -> None:
    assert bill(replace(rented(), stays=((SOURCE, BEGIN),)))["since_notice_s"] == {}


@pytest.mark.parametrize(
    ("ran_s", "was_taken_back", "usd"),
    [(10, False, 0.06 / 60), (120, False, 0.06 / 30), (3599, True, 0.0), (7200, True, 0.12)],
)
def test_ec2_bills_by_the_second(ran_s: float, usd: float, *, was_taken_back: bool) -> None:
    assert ec2_bill(0.06, ran_s, was_taken_back=was_taken_back) == pytest.approx(usd)


@pytest.mark.parametrize(("ran_s", "hours"), [(0, 1), (3600, 1), (3601, 2)])
def test_hetzner_bills_the_hours_that_were_begun(ran_s: float, hours: int) -> None:
    assert hetzner_bill(0.5, ran_s) == hours * 0.5


def test_github_counts_minutes_that_were_begun() -> None:
    cost = job_cost([Stay("a", 0, 60, 1, 1)])
    assert (cost.github_minutes, job_cost([Stay("a", 0, 60.5, 1, 1)]).github_minutes) == (1, 2)
