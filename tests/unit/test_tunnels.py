"""A host's tunnels: dialled until the hub has answered, kept on disk, put right when they have ended."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.integration.listeners import a_heartbeat
from workers.domain.errors import Unfit
from workers.domain.messages import OverlayPlace
from workers.domain.overlay import KEEPALIVE_S, Peer, stamp_of
from workers.host.tunnels import Tunnels
from workers.wireguard import Seat

HUB = Peer("hub", ("10.91.0.0/16",), "192.0.2.3:51820", KEEPALIVE_S)
OTHER = Peer("other", ("10.91.0.17/32",), "192.0.2.17:51820", KEEPALIVE_S)
PLACE = OverlayPlace("10.91.0.16", (HUB,))


class WireOfOne:
    """A link that dials a peer when it comes to know it, and hears who answers."""

    name = "wg0"
    public_key = "ours"

    def __init__(self) -> None:
        self.seat: Seat | None = None
        self.peers: tuple[Peer, ...] = ()
        self.dialled: list[str] = []
        self.answering: set[str] = set()

    @property
    def is_up(self) -> bool:
        return self.seat is not None

    def prepare(self, seat: Seat) -> None:
        self.seat = seat

    def set_peers(self, peers: Iterable[Peer]) -> None:
        wanted = tuple(peers)
        self.dialled += [one.key for one in wanted if one not in self.peers and one.keepalive_s is not None]
        self.peers = wanted

    def heard(self) -> dict[str, int]:
        return {one.key: int(one.key in self.answering) for one in self.peers}

    def end(self) -> None:
        self.seat, self.peers = None, ()


@pytest.fixture
def link() -> WireOfOne:
    return WireOfOne()


@pytest.fixture
def tunnels(link: WireOfOne, tmp_path: Path) -> Tunnels:
    made = Tunnels(link, tmp_path, 51820, 1420)
    made.keep(PLACE)
    assert made.open() == PLACE.address
    return made


def test_a_host_that_has_to_dial_is_not_ready_before_the_hub_has_answered(tunnels: Tunnels, link: WireOfOne) -> None:
    tunnels.take(None)
    said = tunnels.told(a_heartbeat(ready=True))
    assert (said.ready, said.not_ready_because) == (False, "the relay does not answer on the overlay yet")
    link.answering.add(HUB.key)
    tunnels.take(None)
    assert tunnels.told(a_heartbeat(ready=True)) == replace(a_heartbeat(ready=True), peers=stamp_of((HUB,)))


def test_it_dials_again_before_wireguard_would(tunnels: Tunnels, link: WireOfOne) -> None:
    assert link.dialled == ["hub"]
    tunnels.take(None)
    assert link.dialled == ["hub", "hub"]
    tunnels.take(None)
    assert link.dialled == ["hub", "hub"], "and not at every heartbeat"
    assert link.peers == (HUB,)


def test_one_that_can_be_dialled_waits_for_nobody(link: WireOfOne, tmp_path: Path) -> None:
    reachable = Tunnels(link, tmp_path, 51820, 1420)
    reachable.keep(OverlayPlace("10.91.0.16", (replace(HUB, keepalive_s=None),)))
    reachable.open()
    reachable.take(None)
    assert reachable.told(a_heartbeat(ready=True)).ready


def test_why_a_host_is_not_ready_otherwise_is_said_first(tunnels: Tunnels) -> None:
    assert tunnels.told(a_heartbeat(ready=False)).not_ready_because == "self-test runs"


def test_other_peers_are_taken_at_once_and_kept(tunnels: Tunnels, link: WireOfOne, tmp_path: Path) -> None:
    tunnels.take((HUB, OTHER))
    assert link.peers == (HUB, OTHER)
    anew = WireOfOne()
    again = Tunnels(anew, tmp_path, 51820, 1420)
    assert again.open() == PLACE.address
    assert anew.peers == (HUB, OTHER)
    assert anew.seat == Seat(PLACE.address, 16, 51820, 1420)


def test_what_has_ended_is_made_again(tunnels: Tunnels, link: WireOfOne) -> None:
    link.end()
    tunnels.take(None)
    assert (link.is_up, link.peers) == (True, (HUB,))


def test_a_place_that_cannot_be_read_is_one_sentence(link: WireOfOne, tmp_path: Path) -> None:
    (tmp_path / "overlay.json").write_text("{}")
    with pytest.raises(Unfit, match="does not hold a place on the overlay"):
        Tunnels(link, tmp_path, 51820, 1420).open()
