"""When a package is renewed, and in which order."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

from hypothesis import given
from hypothesis import strategies as st

from workers.domain.release import Release
from workers.planning.renewal import RenewalSeen, RenewalStep, next_step

OLD, NEW = Release("2.9.0", date(2026, 10, 1)), Release("2.10.0", date(2026, 11, 1))
RELEASES = st.one_of(st.none(), st.sampled_from([OLD, NEW, Release("2.10.1", date(2026, 11, 2))]))


def test_versions_are_compared_number_by_number() -> None:
    assert NEW.is_newer_than(OLD)
    assert not OLD.is_newer_than(NEW)
    assert not NEW.is_newer_than(NEW)


def test_nothing_is_done_about_a_release_that_is_not_newer() -> None:
    assert next_step(RenewalSeen(NEW, NEW)) is RenewalStep.NOTHING
    assert next_step(RenewalSeen(NEW, OLD)) is RenewalStep.NOTHING


def test_a_new_release_goes_its_way() -> None:
    seen = RenewalSeen(OLD, NEW)
    assert next_step(seen) is RenewalStep.PIN
    seen = replace(seen, candidate=NEW)
    assert next_step(seen) is RenewalStep.BUILD
    seen = replace(seen, is_built=True)
    assert next_step(seen) is RenewalStep.PROVE
    assert next_step(replace(seen, is_proved=True)) is RenewalStep.ROLL_OVER


@given(
    st.builds(
        RenewalSeen, RELEASES, st.sampled_from([OLD, NEW]), RELEASES, is_built=st.booleans(), is_proved=st.booleans()
    )
)
def test_nothing_unproved_is_ever_rolled_over(seen: RenewalSeen) -> None:
    if next_step(seen) is RenewalStep.ROLL_OVER:
        assert seen.is_built
        assert seen.is_proved
        assert seen.candidate is not None
        assert not seen.newest.is_newer_than(seen.candidate)
        assert seen.in_use is None or seen.newest.is_newer_than(seen.in_use)
