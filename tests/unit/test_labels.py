"""What a job may ask for: our own label, GitHub's, and how it leaves into the internet."""

from __future__ import annotations

import pytest

from workers.domain.labels import Unserved, network_of, served
from workers.domain.overlay import GuestNetwork

RELAY, NAT = GuestNetwork.RELAY, GuestNetwork.NAT


@pytest.mark.parametrize("default", [RELAY, NAT])
def test_a_label_names_the_network_and_without_one_the_default_holds(default: GuestNetwork) -> None:
    assert network_of(["spot-runner"], default) is default
    assert network_of(["spot-runner", "Network=NAT"], default) is NAT
    assert network_of(["network=relay", "spot-runner"], default) is RELAY


@pytest.mark.parametrize("labels", [["spot-runner"], ["spot-runner", "network=nat"], ["Spot-Runner", "network=Relay"]])
def test_what_is_served_is_served_whatever_its_case(labels: list[str]) -> None:
    assert served(labels) is None


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (["network=nat"], "does not name 'spot-runner'"),
        (["spot-runner", "network=nat", "network=relay"], "name one of them"),
        (["spot-runner", "network=none"], "which no pool offers"),
    ],
)
def test_what_is_not_served_is_refused_with_the_remedy(labels: list[str], says: str) -> None:
    refusal = served(labels)
    assert isinstance(refusal, Unserved)
    assert says in refusal.reason
