"""What clouds have told is kept, each cloud's own, the latest only."""

from __future__ import annotations

from dataclasses import replace

from tests.contract.store_rows import START, WholeStore
from workers.domain.architecture import Architecture
from workers.domain.host_class import Acceleration
from workers.domain.offer import Catalogue, Likeness, Offer
from workers.domain.runner import Shape

LIKENESS = Likeness(Architecture.X86_64, Acceleration.KVM, "GenuineIntel")
OFFER = Offer("aws", "r", "z", "m8i.large", Shape(2, 7168, 65536), 0.1, is_spot=True, likeness=LIKENESS, network_mbit=9)
TOLD = Catalogue("aws", START, START, (OFFER,), ("m7a.large has no price",))


def test_the_latest_word_of_each_cloud_is_found_as_it_was_put(store: WholeStore) -> None:
    assert store.catalogues.all() == {}
    silent = Catalogue("hetzner", START, problem="no answer")
    store.catalogues.put(TOLD)
    store.catalogues.put(silent)
    assert store.catalogues.all() == {"aws": TOLD, "hetzner": silent}
    later = replace(TOLD, offers=(OFFER, replace(OFFER, is_spot=False, likeness=Likeness())), remarks=())
    store.catalogues.put(later)
    assert store.catalogues.all() == {"aws": later, "hetzner": silent}
