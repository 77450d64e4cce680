"""Faults are named, and each is planted at a phase."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.drill.outcomes import ELSEWHERE, OUTCOMES
from workers.domain.errors import BadInput
from workers.domain.migration import MigrationPhase
from workers.rehearsal.drill.faults import (
    FAULTS,
    NAMES,
    OF_ONE_PHASE,
    PHASES,
    WITH_NOTICE,
    chosen_faults,
    phase_of,
    planter_at_phase,
)


def test_all_means_every_fault_at_every_phase() -> None:
    chosen = chosen_faults("all")
    assert len(set(chosen)) == len(chosen) == len(FAULTS) * len(PHASES) + len(OF_ONE_PHASE) + len(WITH_NOTICE)
    assert {phase_of(fault) for fault in chosen} == {*PHASES, None}
    assert chosen_faults(",".join(chosen)) == chosen


def test_a_list_names_faults_with_or_without_a_phase() -> None:
    assert chosen_faults("redis_flushed@paused, target_gone@copying") == (
        "redis_flushed@paused",
        "target_gone@copying",
    )
    assert len(chosen_faults("redis_flushed")) == len(PHASES)
    assert phase_of("redis_flushed@committed") is MigrationPhase.COMMITTED
    assert chosen_faults("none") == ()
    assert chosen_faults("no_target,commit_unheard") == ("no_target", "commit_unheard@paused")


def test_what_is_planted_is_what_was_chosen() -> None:
    for fault in chosen_faults("all"):
        if phase_of(fault) is not None:
            name = fault.partition("@")[0]
            assert planter_at_phase(fault) in {FAULTS.get(name), OF_ONE_PHASE.get(name, (None, None))[1]}


@pytest.mark.parametrize(
    "text", ["", "redis", "redis_flushed@planned", "redis_flushed,,", "no_target@paused", "commit_unheard@copying"]
)
def test_what_is_no_fault_is_refused_by_name(text: str) -> None:
    with pytest.raises(BadInput, match="--faults"):
        chosen_faults(text)


PLANTERS = {**FAULTS, **{name: planter for name, (_, planter) in OF_ONE_PHASE.items()}, **WITH_NOTICE}


@pytest.mark.parametrize("name", NAMES)
def test_every_fault_says_in_a_sentence_what_goes_wrong(name: str) -> None:
    assert (PLANTERS[name].__doc__ or "").endswith(".")


def test_what_comes_of_every_fault_is_written_down() -> None:
    assert set(OUTCOMES) == set(NAMES)


@pytest.mark.parametrize("name", ELSEWHERE)
def test_what_no_drill_plants_is_played_where_it_is_said_to_be(name: str) -> None:
    assert name not in NAMES
    assert (Path(__file__).parents[3] / ELSEWHERE[name][1]).exists()
