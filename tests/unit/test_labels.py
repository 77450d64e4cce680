"""What a job may ask for: whatever is asked for by the grammar is understood, and everything else gets one sentence."""

from __future__ import annotations

import random
from dataclasses import fields

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from workers.domain.architecture import Architecture
from workers.domain.labels import (
    CPU_MAX,
    IMPLIED,
    KEYS,
    MINUTES_MAX,
    RAM_MAX_GIB,
    SERVED,
    Again,
    Interrupt,
    Range,
    Wish,
    field_of,
    read_options,
    reading,
)
from workers.domain.overlay import GuestNetwork

NAT, RELAY = GuestNetwork.NAT, GuestNetwork.RELAY
X86_64, ARM64 = Architecture.X86_64, Architecture.ARM64
RUN = "16725063829-1"
ALL = Wish(Range(4, 4), Range(8, 8), "debian-12", "ci", NAT, Interrupt.RERUN, 60, RUN, Again.NEVER, X86_64)
ALL_IN_ONE = (
    "spot-runner/cpu=4/ram=8/image=debian-12/pool=ci/network=nat/interrupt=rerun/max-minutes=60"
    "/run=16725063829-1/rerun=never/arch=x86_64"
)


def ranges(most: int) -> st.SearchStrategy[Range]:
    pairs = st.tuples(st.integers(1, most), st.integers(1, most))
    return pairs.map(lambda pair: Range(min(pair), max(pair)))


names = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True)
wishes = st.builds(
    Wish,
    st.none() | ranges(CPU_MAX),
    st.none() | ranges(RAM_MAX_GIB),
    st.none() | names,
    st.none() | names,
    st.none() | st.sampled_from(GuestNetwork),
    st.none() | st.sampled_from(Interrupt),
    st.none() | st.integers(1, MINUTES_MAX),
    st.none() | st.lists(st.integers(0, 10**20 - 1).map(str), min_size=1, max_size=4).map("-".join),
    st.none() | st.sampled_from(Again),
    st.none() | st.sampled_from(Architecture),
)


@pytest.mark.parametrize(
    ("labels", "wish"),
    [
        (["spot-runner"], Wish()),
        (["Spot-Runner", "Self-Hosted", "Linux", "X64"], Wish()),
        (["self-hosted", "spot-runner", "cpu=4", "ram=8"], Wish(Range(4, 4), Range(8, 8))),
        (["cpu=4+8", "spot-runner"], Wish(Range(4, 8))),
        (["spot-runner/run=16725063829"], Wish(run="16725063829")),
        (["spot-runner", "run=16725063829-2"], Wish(run="16725063829-2")),
        (["spot-runner/cpu=2", "Network=NAT"], Wish(Range(2, 2), network=NAT)),
        (["self-hosted", "Linux", "ARM64", "spot-runner"], Wish(arch=ARM64)),
        ([ALL_IN_ONE], ALL),
    ],
)
def test_what_the_documentation_shows_is_understood(labels: list[str], wish: Wish) -> None:
    found = reading(labels)
    assert (found.wish, found.problems, found.is_ours) == (wish, (), True)


def test_every_key_is_a_field_and_every_field_a_key() -> None:
    assert [field_of(key) for key in KEYS] == [each.name for each in fields(Wish)]
    assert ALL.label == ALL_IN_ONE


@given(wishes, st.randoms(), st.booleans())
def test_every_wish_can_be_written_as_one_label_or_as_many_in_any_order(
    wish: Wish,
    chance: random.Random,
    in_capitals: bool,  # noqa: FBT001 hypothesis gives it
) -> None:
    labels = [SERVED, *IMPLIED, *(f"{key}={value}" for key, value in wish.options.items())]
    chance.shuffle(labels)
    for written in ([wish.label], labels):
        asked = [label.upper() for label in written] if in_capitals else written
        found = reading(asked)
        assert (found.wish, found.problems) == (wish, ())


@given(wishes, wishes)
def test_what_is_asked_for_goes_over_what_a_pool_gives(wish: Wish, default: Wish) -> None:
    both = wish.over(default)
    for key in KEYS:
        own, given = getattr(wish, field_of(key)), getattr(default, field_of(key))
        assert getattr(both, field_of(key)) == (given if own is None else own)
    assert both.without(KEYS) == Wish()


words = st.sampled_from(
    [*KEYS, "", "gpu", "cpus", "memory", "CPU", "4", "0", "4+8", "8+4", "99999", "nat", "x", "=", "+"]
)
crooked = st.lists(words | st.text(max_size=6), max_size=4).map("=".join)
anything = st.lists(
    st.sampled_from([SERVED, "self-hosted", ALL_IN_ONE])
    | st.lists(crooked, max_size=4).map(lambda parts: "/".join([SERVED, *parts]))
    | crooked
    | st.text(max_size=400),
    max_size=6,
)


@given(anything)
@example([SERVED, "spot-runner/"])
@example([f"{SERVED}/ram=8gb/cpus=4"])
def test_whatever_is_asked_for_there_is_a_wish_that_can_be_written_and_one_line_for_every_problem(
    labels: list[str],
) -> None:
    found = reading(labels)
    assert reading([found.wish.label]).problems == ()
    assert reading([found.wish.label]).wish == found.wish
    for problem in found.problems:
        assert problem.startswith("runs-on: ")
        assert problem.isprintable(), "a label cannot write into logs or onto screens as it likes"
        assert len(problem) < 500
        assert "; " in problem, "the remedy follows the problem"


@given(anything)
def test_nothing_that_is_misspelt_passes_for_nothing_asked(labels: list[str]) -> None:
    """What was read without a problem is all that was asked for."""
    found = reading(labels)
    if not found.problems:
        asked = {part for label in labels for part in label.lower().split("/") if "=" in part}
        assert {part.partition("=")[0] for part in asked} == set(found.wish.options)


@pytest.mark.parametrize(
    ("labels", "problem", "mended"),
    [
        (["ubuntu-latest"], "'ubuntu-latest' does not name spot-runner; write runs-on: spot-runner", Wish()),
        (["network=nat"], "does not name spot-runner", Wish()),
        (["spot-runner", "gpu"], "'gpu': 'gpu' is none of the options (cpu, ram, image", Wish()),
        (["spot-runner/gpu=1"], "'gpu=1' is none of the options", Wish()),
        (["spot-runner/cpus=4"], "'cpus' is no option; write cpu=VALUE", Wish(Range(4, 4))),
        (["spot-runner/memory=8"], "'memory' is no option; write ram=VALUE", Wish(ram=Range(8, 8))),
        (["spot-runner/ram=8gb"], "'8gb' is no value for ram; write ram=N or ram=N+M", Wish(ram=Range(8, 8))),
        (["spot-runner/cpu=8+4"], "'8+4' is no value for cpu", Wish(Range(4, 8))),
        (["spot-runner/cpu=0"], "'0' is no value for cpu", Wish(Range(1, 1))),
        (["spot-runner/cpu=٤"], "is no value for cpu", Wish()),
        (["spot-runner/cpu"], "cpu has no value", Wish()),
        (["spot-runner/cpu=4/cpu=8"], "cpu is asked for twice, 4 and 8; name it once", Wish(Range(4, 4))),
        (
            ["spot-runner", "network=nat", "network=relay"],
            "network is asked for twice, nat and relay",
            Wish(network=NAT),
        ),
        (["spot-runner", "network=none"], "write network=relay or network=nat", Wish()),
        (["spot-runner/interrupt=reruns"], "write interrupt=move or interrupt=rerun", Wish(interrupt=Interrupt.RERUN)),
        (["spot-runner/max-minutes=10+20"], "'10+20' is no value for max-minutes", Wish(max_minutes=10)),
        (["spot-runner/max-minutes=9999"], "from 1 to 7200", Wish(max_minutes=7200)),
        (["spot-runner/run="], "'' is no value for run; write run=${{ github.run_id }}", Wish()),
        (["spot-runner/run=${{ github.run_id }}"], "is no value for run", Wish()),
        (["spot-runner/run=1-2-3-4-5"], "is no value for run", Wish()),
        (["spot-runner/run=-1"], "is no value for run", Wish()),
        (["spot-runner/run=1", "run=2"], "run is asked for twice, 1 and 2", Wish(run="1")),
        (["spot-runner/image=a b"], "'a b' is no value for image", Wish()),
        (["spot-runner/"], "'' is none of the options", Wish()),
    ],
)
def test_what_is_wrong_is_said_with_its_place_and_remedy_and_mended_where_it_can_be(
    labels: list[str], problem: str, mended: Wish
) -> None:
    found = reading(labels)
    assert problem in found.problems[0]
    assert found.wish == mended


def test_only_labels_that_name_us_are_ours() -> None:
    assert reading(["spot-runner/gpu"]).is_ours
    assert not any(reading(labels).is_ours for labels in ([], ["ubuntu-latest"], ["spot-runners"], ["cpu=4"]))


def test_options_can_be_read_alone() -> None:
    assert read_options("network=nat/cpu=2").wish == Wish(Range(2, 2), network=NAT)
    assert read_options("").problems == ()
    assert read_options("cpu=x").problems
