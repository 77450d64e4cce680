"""What a job gets for its labels: first in examples, then for whatever pools and wishes there may be."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.test_labels import anything, wishes
from workers.domain.labels import ALWAYS, KEYS, Again, Interrupt, Range, Unserved, Wish
from workers.domain.names import PackageDigest
from workers.domain.overlay import GuestNetwork
from workers.domain.pools import Origin, Package, Policy, Pool, Terms
from workers.domain.runner import Shape
from workers.planning.serving import granted, judge

MINE = Origin("Octo-Org/hello")
FORKED = Origin("octo-org/hello", is_public=True, is_fork=True)
ONLY = Package("debian-12", PackageDigest("sha256:00"), Shape(1, 1024, 4096))
BIG = Package("debian-12", PackageDigest("sha256:01"), Shape(4, 8192, 65536))
OTHER = Package("ubuntu-24.04", PackageDigest("sha256:02"), Shape(2, 4096, 65536))
ODD = Package("tiny", PackageDigest("sha256:03"), Shape(1, 512, 4096))
PLAIN = Policy((Pool("default"),), (ONLY,))
RICH = Policy(
    (
        Pool(
            "ci",
            defaults=Wish(network=GuestNetwork.NAT, max_minutes=30),
            keys=frozenset({"cpu", "ram", "interrupt", "max-minutes"}),
            images=("debian-12",),
            cpu_max=4,
            minutes_max=60,
            repositories=("octo-org/*",),
        ),
        Pool("open", forks=True, cpu_max=2),
    ),
    (BIG, OTHER, ONLY),
)


def terms(labels: str, policy: Policy = RICH, origin: Origin = MINE) -> Terms:
    decided = judge(labels.split(), origin, policy)
    assert isinstance(decided, Terms), decided
    return decided


def refusal(labels: str, policy: Policy = RICH, origin: Origin = MINE) -> Unserved:
    decided = judge(labels.split(), origin, policy)
    assert isinstance(decided, Unserved), decided
    return decided


def test_what_is_not_built_is_refused_by_name_and_what_is_may_be_asked_for() -> None:
    told = "arch=arm64 is not built yet; ask for arch=x86_64, or leave arch out"
    for labels in ("spot-runner/arch=arm64", "self-hosted Linux ARM64 spot-runner"):
        found = refusal(labels, PLAIN)
        assert (found.reason, found.nearest) == (told, "spot-runner")
    assert terms("spot-runner/arch=x86_64", PLAIN) == terms("spot-runner", PLAIN)


class TestTerms:
    def test_the_plain_label_gets_what_there_is(self) -> None:
        assert terms("spot-runner", PLAIN) == Terms(
            "default", ONLY.digest, "debian-12", ONLY.shape, GuestNetwork.RELAY, Interrupt.MOVE
        )

    def test_a_pool_gives_its_defaults_and_labels_go_over_them(self) -> None:
        given = terms("spot-runner")
        assert (given.pool, given.network, given.max_minutes) == ("ci", GuestNetwork.NAT, 30)
        asked = terms("spot-runner/cpu=2+8/interrupt=rerun/max-minutes=45")
        assert (asked.package, asked.interrupt, asked.max_minutes) == (BIG.digest, Interrupt.RERUN, 45)

    def test_the_smallest_package_that_fits_is_taken(self) -> None:
        assert terms("spot-runner/pool=open").package == ONLY.digest
        assert terms("spot-runner/pool=open/cpu=1+8/ram=2+8").package == OTHER.digest

    def test_a_pools_limit_holds_for_who_does_not_ask(self) -> None:
        policy = replace(RICH, pools=(replace(RICH.pools[0], defaults=Wish()),))
        assert terms("spot-runner", policy).max_minutes == 60

    def test_the_first_pool_that_takes_the_job_is_its_own(self) -> None:
        assert terms("spot-runner", origin=Origin("other/hello")).pool == "open"
        assert terms("spot-runner", origin=FORKED).pool == "open"
        assert terms("spot-runner", origin=replace(FORKED, is_fork=False)).pool == "ci"
        assert terms("spot-runner", origin=replace(FORKED, is_public=False)).pool == "ci"


@pytest.mark.parametrize(
    ("labels", "reason", "nearest"),
    [
        (
            "spot-runner/cpu=4/ram=8",
            "has no package of cpu=4 and ram=8; ask for one that there is (image=debian-12 with cpu=1 and ram=1)",
            "spot-runner/cpu=1/ram=1",
        ),
        (
            "spot-runner/image=ubuntu/cpu=1+8",
            "no package of cpu=1+8 and image=ubuntu",
            "spot-runner/cpu=1+8/image=debian-12",
        ),
        ("spot-runner/cpus=9/network=nat", "'cpus' is no option", "spot-runner/cpu=1/network=nat"),
        (
            "spot-runner/pool=ci",
            "pool=ci is no pool here; name one that there is (default)",
            "spot-runner/pool=default",
        ),
        ("gpu", "does not name spot-runner", "spot-runner"),
    ],
)
def test_what_one_package_cannot_serve_is_refused_with_the_nearest(labels: str, reason: str, nearest: str) -> None:
    found = refusal(labels, PLAIN)
    assert reason in found.reason
    assert found.nearest == nearest
    assert found.sentence == f"{found.reason}; the nearest that works: runs-on: {nearest}"


@pytest.mark.parametrize(
    ("labels", "origin", "reason", "nearest"),
    [
        (
            "spot-runner/network=relay",
            MINE,
            "network may not be asked for in pool ci; leave it out (one may",
            "spot-runner",
        ),
        (
            "spot-runner/max-minutes=90",
            MINE,
            "max-minutes=90 is more than pool ci allows; ask for 60 or less",
            "spot-runner/max-minutes=60",
        ),
        ("spot-runner/cpu=8", MINE, "cpu=8 is more than pool ci allows; ask for 4 or less", "spot-runner/cpu=4"),
        ("spot-runner/ram=4", MINE, "no package of ram=4", "spot-runner/ram=8"),
        (
            "spot-runner/pool=ci",
            Origin("other/x"),
            "pool=ci is closed to other/x; let the administrator add it",
            "spot-runner/pool=open",
        ),
        (
            "spot-runner/pool=ci",
            FORKED,
            "pool=ci takes no jobs of forks of public repositories",
            "spot-runner/pool=open",
        ),
        (
            "spot-runner/pool=cii/cpu=4",
            FORKED,
            "pool=cii is no pool here; name one that there is (open)",
            "spot-runner/cpu=2/pool=open",
        ),
    ],
)
def test_what_a_pool_does_not_allow_is_refused_with_the_nearest(
    labels: str, origin: Origin, reason: str, nearest: str
) -> None:
    found = refusal(labels, RICH, origin)
    assert reason in found.reason
    assert found.nearest == nearest


def test_where_no_pool_takes_a_job_nothing_is_near() -> None:
    closed = replace(RICH, pools=RICH.pools[:1])
    assert refusal("spot-runner", closed, FORKED).nearest is None
    elsewhere = refusal("spot-runner", closed, Origin("other/x"))
    assert (elsewhere.nearest, elsewhere.sentence) == (None, elsewhere.reason)
    assert "every pool is closed to other/x" in elsewhere.reason


# ---------------------------------------------------------------- for whatever there may be

packages = st.lists(st.sampled_from([ONLY, BIG, OTHER, ODD]), min_size=1, unique=True).map(tuple)
images = st.lists(st.sampled_from(["debian-12", "ubuntu-24.04", "tiny"]), max_size=2).map(tuple)
few = st.none() | st.integers(1, 8)
few_wishes = st.builds(
    Wish,
    few.map(lambda low: low and Range(low, low + low % 3)),
    few.map(lambda low: low and Range(low, 2 * low)),
    st.sampled_from([None, None, "debian-12", "tiny", "none"]),
    st.sampled_from([None, "a", "b", "c"]),
    st.none() | st.sampled_from(GuestNetwork),
    st.none() | st.sampled_from(Interrupt),
    st.none() | st.integers(1, 100),
    st.sampled_from([None, "7", "7-2"]),
    st.none() | st.sampled_from(Again),
)
pools = st.builds(
    Pool,
    st.just("a"),
    few_wishes.map(lambda wish: wish.without(ALWAYS)),
    st.frozensets(st.sampled_from(KEYS)),
    images,
    few,
    few,
    st.none() | st.integers(1, 90),
    st.sampled_from([("*",), ("octo-org/*",), ("x/y",)]),
    st.booleans(),
)
policies = st.builds(
    lambda found, there: Policy(tuple(replace(pool, name="ab"[place]) for place, pool in enumerate(found)), there),
    st.lists(pools, min_size=1, max_size=2),
    packages,
)
origins = st.sampled_from([MINE, FORKED, Origin("x/y")])


@settings(max_examples=400)
@given(wishes | few_wishes, origins, policies)
def test_what_is_given_is_what_was_asked_for_and_no_more_than_its_pool_allows(
    wish: Wish, origin: Origin, policy: Policy
) -> None:
    given = granted(wish, origin, policy)
    if isinstance(given, str):
        return
    pool = policy.pool(given.pool)
    assert pool is not None
    assert wish.pool in {None, pool.name}
    assert pool.takes(origin)
    assert set(wish.options) <= pool.keys | ALWAYS, "every pool lets jobs name it, and their run"
    assert wish.cpu is None or given.shape.vcpus in wish.cpu
    assert wish.ram is None or given.shape.memory_mib / 1024 in wish.ram
    assert wish.image in {None, given.image}
    assert wish.network in {None, given.network}
    assert wish.interrupt in {None, given.interrupt}
    assert wish.max_minutes in {None, given.max_minutes}
    assert pool.cpu_max is None or given.shape.vcpus <= pool.cpu_max
    assert not pool.images or given.image in pool.images
    assert (given.image, given.package, given.shape) in {(one.image, one.digest, one.shape) for one in policy.packages}


@settings(max_examples=400)
@given(few_wishes.map(lambda wish: [wish.label]) | anything, origins, policies)
def test_the_nearest_is_always_served_and_only_refusals_have_one(
    labels: list[str], origin: Origin, policy: Policy
) -> None:
    decided = judge(labels, origin, policy)
    if isinstance(decided, Unserved):
        assert decided.reason.isprintable()
        if decided.nearest is not None:
            assert isinstance(judge([decided.nearest], origin, policy), Terms)
        elif isinstance(judge(["spot-runner"], origin, policy), Terms):
            pytest.fail("the plain label is served, so there is a nearest one")


@settings(max_examples=200)
@given(few_wishes, origins, policies, st.randoms())
def test_it_does_not_matter_in_which_order_labels_and_packages_come(
    wish: Wish, origin: Origin, policy: Policy, chance: object
) -> None:
    labels = ["spot-runner", *(f"{key}={value}" for key, value in wish.options.items())]
    there = list(policy.packages)
    chance.shuffle(labels)  # type: ignore[attr-defined]
    chance.shuffle(there)  # type: ignore[attr-defined]
    again = judge(labels, origin, replace(policy, packages=tuple(there)))
    once = judge([wish.label], origin, policy)
    assert type(again) is type(once)
    if isinstance(once, Terms):
        assert again == once
