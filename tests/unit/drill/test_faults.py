"""Faults are named, and each is planted at a phase."""

from __future__ import annotations

import pytest

from tests.unit.drill.outcomes import OUTCOMES
from workers.domain.errors import BadInput
from workers.domain.migration import MigrationPhase
from workers.rehearsal.drill.faults import FAULTS, PHASES, chosen_faults, phase_of


def test_all_means_every_fault_at_every_phase() -> None:
    chosen = chosen_faults("all")
    assert len(set(chosen)) == len(chosen) == len(FAULTS) * len(PHASES)
    assert {phase_of(fault) for fault in chosen} == set(PHASES)


def test_a_list_names_faults_with_or_without_a_phase() -> None:
    assert chosen_faults("redis_flushed@paused, target_gone@copying") == (
        "redis_flushed@paused",
        "target_gone@copying",
    )
    assert len(chosen_faults("redis_flushed")) == len(PHASES)
    assert phase_of("redis_flushed@committed") is MigrationPhase.COMMITTED
    assert chosen_faults("none") == ()


@pytest.mark.parametrize("text", ["", "redis", "redis_flushed@planned", "redis_flushed,,"])
def test_what_is_no_fault_is_refused_by_name(text: str) -> None:
    with pytest.raises(BadInput, match="--faults"):
        chosen_faults(text)


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_says_in_a_sentence_what_goes_wrong(name: str) -> None:
    assert (FAULTS[name].__doc__ or "").endswith(".")


def test_what_comes_of_every_fault_is_written_down() -> None:
    assert set(OUTCOMES) == set(FAULTS)
