"""What can be seen at Hetzner before a launch: all that is wrong is named once, and nothing but reads is asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace

import pytest

from tests.contract.clouds import SPEC, TOLD, A
from tests.contract.hetzner.sides import BIG, READONLY, RENTAL, TOKEN, Hetzner, bought, plant, rented_from
from workers.domain.errors import Barred
from workers.domain.market import Sources
from workers.domain.runner import Shape
from workers.dry_run import Fault
from workers.providers.hetzner.account import Account
from workers.providers.hetzner.dry_run import HetznerDryRun
from workers.providers.hetzner.requests import Rental
from workers.rehearsal.hetzner.faults import FaultKind

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"


@contextmanager
def dry_run(place: Hetzner, rental: Rental = RENTAL, token: str = TOKEN) -> Iterator[HetznerDryRun]:
    with closing(Account.open(rental, token, place.clock, f"{place.url}/v1")) as account:
        yield HetznerDryRun(account)


def faults(place: Hetzner, rental: Rental = RENTAL, spec: Shape = SPEC, *wanted: Sources) -> list[Fault]:
    with dry_run(place, rental) as run:
        return list(run.faults(spec, wanted or (Sources(),)))


def test_where_nothing_is_wrong_nothing_is_said_and_nothing_is_made(stocked: Hetzner) -> None:
    stocked.client().ssh_keys.create("mine", KEY)
    before = stocked.simulation.rates.admitted
    assert faults(stocked, replace(RENTAL, server_types=("cx42",), ssh_key="mine")) == []
    assert stocked.simulation.rates.admitted - before == 5
    assert (bought(stocked), dict(stocked.simulation.project.firewalls)) == ([], {})


def test_a_token_that_may_only_read_sees_the_same_and_the_first_launch_says_it(stocked: Hetzner) -> None:
    with dry_run(stocked, token=READONLY) as run:
        assert list(run.faults(SPEC, (Sources(),))) == []
    with rented_from(stocked, token=READONLY) as cloud, pytest.raises(Barred, match="our token may only read"):
        cloud.launch(A, SPEC, TOLD)


def test_a_wrong_token_is_said_once(stocked: Hetzner) -> None:
    with dry_run(stocked, token="wrong") as run, pytest.raises(Barred, match="does not know our token; put a valid"):
        list(run.faults(SPEC, (Sources(),)))


@pytest.mark.parametrize(
    ("changed", "spec", "sentence"),
    [
        ({"locations": ("moon1",)}, SPEC, "there is no location moon1 (any more); correct SPOT_RUNNER_HETZNER_LOCATIO"),
        ({"server_types": ("cx99",)}, SPEC, "there is no server type cx99 (any more); correct SPOT_RUNNER_HETZNER_SER"),
        ({"server_types": ("cax31",)}, SPEC, "cax31: arm64 is not built yet"),
        ({"server_types": ("cpx11",)}, BIG, "cpx11 holds 8 vCPUs"),
        ({"image": "spot-runner/image=kvm"}, SPEC, "no x86 snapshot with the labels 'spot-runner/image=kvm'"),
        ({"image": "77"}, SPEC, "get image 77"),
        ({"ssh_key": "mine"}, SPEC, "there is no SSH key mine; add it in the project, or correct SPOT_RUNNER_HETZNER"),
        ({"server_types": ("cx42",), "locations": ("ash",)}, SPEC, "cx42 is not sold in ash but in fsn1, hel1, nbg1"),
    ],
)
def test_a_setting_that_names_what_is_not_there_is_named(
    stocked: Hetzner, changed: dict[str, object], spec: Shape, sentence: str
) -> None:
    (told,) = faults(stocked, replace(RENTAL, **changed), spec)  # type: ignore[arg-type]  # the rental's own types
    assert told.is_certain
    assert told.sentence.startswith("Hetzner: ")
    assert sentence in told.sentence


def test_one_wrong_setting_does_not_hide_another(stocked: Hetzner) -> None:
    wrong = replace(RENTAL, locations=("moon1",), server_types=("cx99",), image="77", ssh_key="mine")
    assert [one.is_certain for one in faults(stocked, wrong)] == [True] * 4


def test_what_others_can_stand_in_for_is_less_bad(stocked: Hetzner) -> None:
    told = faults(stocked, replace(RENTAL, locations=("nbg1", "moon1"), server_types=("cx99", "cx42")))
    assert [one.is_certain for one in told] == [False, False]


def test_a_pool_s_zone_that_hetzner_has_not_is_named(stocked: Hetzner) -> None:
    (told,) = faults(stocked, RENTAL, SPEC, Sources(zones=("moon1",)), Sources())
    assert "is not sold in moon1 but in" in told.sentence


def test_what_is_sold_out_now_may_be_there_when_it_is_needed(stocked: Hetzner) -> None:
    stocked.simulation.project.stock.sold_out |= {("nbg1", "cx42"), ("hel1", "cx42")}
    (told,) = faults(stocked, replace(RENTAL, server_types=("cx42",)))
    assert (told.is_certain, told.sentence) == (
        False,
        "Hetzner: cx42 in nbg1, cx42 in hel1: not available now; allow more server types or locations, or wait",
    )


def test_what_hetzner_refuses_to_one_look_keeps_no_other_from_being_made(stocked: Hetzner) -> None:
    plant(stocked, FaultKind.ERROR, "GET", "/locations", code="forbidden")
    told = faults(stocked, replace(RENTAL, ssh_key="mine"))
    assert ["list locations" in told[0].sentence, "no SSH key mine" in told[1].sentence] == [True, True]
