"""The policy file: what it says is what jobs get, and what is wrong with it is one sentence."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.bootstrap import pool_fields as fields
from workers.bootstrap.explain import split_labels
from workers.bootstrap.pools import Problem, Wrong, open_policy, policy_of
from workers.domain.errors import BadInput
from workers.domain.labels import KEYS, Interrupt, Unserved, reading
from workers.domain.market import Market, Sources
from workers.domain.overlay import GuestNetwork
from workers.domain.pools import Origin, Policy, Terms
from workers.domain.runner import Level, Shape
from workers.planning.serving import judge
from workers.settings import ControlSettings

SMALL, LARGE = "sha256:" + "0" * 64, "sha256:" + "1" * 64
PACKAGES = f"""
[[packages]]
image = "debian-12"
digest = "{SMALL}"
vcpus = 1
memory_mib = 1024
disk_mib = 4096

[[packages]]
image = "debian-12"
digest = "{LARGE}"
vcpus = 4
memory_mib = 8192
disk_mib = 16384
"""
WHOLE = f"""{PACKAGES}
[[pools]]
name = "ci"
repositories = ["octo-org/*"]
defaults = "cpu=4/network=nat/max-minutes=60"
keys = ["cpu", "ram", "max-minutes"]
cpu_max = 4
ram_max = 8
minutes_max = 120
images = ["debian-12"]

[[pools]]
name = "open"
forks = true
defaults = "interrupt=rerun"
"""


def settings(home: Path, text: str | None, **more: object) -> ControlSettings:
    file = home / "pools.toml"
    if text is not None:
        file.write_text(text)
    return ControlSettings(package=SMALL, pools_file=None if text is None else file, **more)  # type: ignore[arg-type]


def terms(policy: Policy, labels: str, repository: str = "octo-org/hello") -> Terms:
    decided = judge([labels], Origin(repository), policy)
    assert isinstance(decided, Terms), decided
    return decided


def test_without_a_file_there_is_one_pool_with_the_package_of_the_settings(tmp_path: Path) -> None:
    policy = open_policy(settings(tmp_path, None, guest_network="nat", runner_vcpus=2))
    given = terms(policy, "spot-runner")
    assert (given.pool, given.package, given.image) == ("default", SMALL, "debian-12")
    assert (given.shape, given.network) == (Shape(2, 1024, 4096), GuestNetwork.NAT)
    assert policy.minds_origins, "forks of public repositories run only where a pool says so"


def test_what_the_documentation_shows_works(tmp_path: Path) -> None:
    pages = [Path(__file__).parents[2].joinpath("docs", name).read_text() for name in ("labels.md", "pools.md")]
    found = [part.split("\n", 1) for page in pages for part in page.split("```")[1::2]]
    blocks = dict(reversed(found))
    policy = open_policy(settings(tmp_path, blocks["toml"]))
    assert [pool.name for pool in policy.pools] == ["ci", "strangers"]
    with_budget = blocks["toml"].replace("# budget =", "budget =")
    assert open_policy(settings(tmp_path, with_budget, host_price=0.5)).pools[0].budget is not None
    shown = [split_labels(line.removeprefix("runs-on: ")) for line in blocks["yaml"].splitlines()]
    assert len(shown) == 3
    assert all(reading(labels).problems == () for labels in shown)
    assert all(f'"{key}="' in blocks["ebnf"] for key in KEYS)


def test_a_file_says_what_jobs_get(tmp_path: Path) -> None:
    policy = open_policy(settings(tmp_path, WHOLE))
    given = terms(policy, "spot-runner")
    assert (given.pool, given.package, given.shape) == ("ci", LARGE, Shape(4, 8192, 16384))
    assert (given.network, given.interrupt, given.max_minutes) == (GuestNetwork.NAT, Interrupt.MOVE, 60)
    other = terms(policy, "spot-runner", "other/hello")
    assert (other.pool, other.package, other.interrupt) == ("open", SMALL, Interrupt.RERUN)
    assert isinstance(judge(["spot-runner/network=relay"], Origin("octo-org/hello"), policy), Unserved)


def test_pools_without_packages_have_that_of_the_settings(tmp_path: Path) -> None:
    policy = open_policy(settings(tmp_path, '[[pools]]\nname = "only"\nforks = true', package_image="tiny"))
    assert terms(policy, "spot-runner/image=tiny").package == SMALL
    assert policy.pools[0].keys == set(KEYS)
    assert not policy.minds_origins


POOL = '[[pools]]\nname = "a"\n'
HALF_A_DAY = POOL + 'schedules = [\n  { when = "mon-fri 08:00-18:00", min_ready = 1 },\n'
PAID = POOL + 'budget = { per_day = 5, currency = "EUR" }'


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("[[pools]", 1, "not TOML: Expected ']]' at the end of an array declaration"),
        ('[[pools]]\nname = "a"\nimages = [', 3, "not TOML: Invalid value"),
        ("", 1, "pools: Field required"),
        ("pools = []", 1, "pools: List should have at least 1 item"),
        ('[[pools]]\n\nname = "A b"', 3, "pools.0.name: String should match pattern"),
        (POOL + "fork = true", 3, "pools.0.fork: Extra inputs are not permitted, not True"),
        (POOL + 'forks = "yes"', 3, "pools.0.forks: Input should be a valid boolean, not 'yes'"),
        (POOL + "cpu_max = 0", 3, "pools.0.cpu_max: Input should be greater than or equal to 1, not 0"),
        (POOL + "minutes_max = 9999", 3, "pools.0.minutes_max: Input should be less than or"),
        (POOL + 'repositories = [\n"a/b",\n"a/b/c",\n]', 5, "pools.0.repositories.1: String should match pattern"),
        (POOL + 'keys = ["cpu",\n"cpus"]', 4, "pools.0 (a): keys.1: 'cpus' is none; the keys are cpu, ram"),
        (POOL + 'defaults = "cpu=x"', 3, "pools.0 (a): defaults: 'spot-runner/cpu=x': 'x' is no value for cpu"),
        (POOL + 'defaults = "pool=b"', 3, "pools.0 (a): defaults: pool is no default of a pool"),
        (POOL + 'defaults = "cpu=2"', 3, "pools.0 (a): defaults: pool a has no package of cpu=2"),
        (POOL + 'minutes_max = 5\ndefaults = "max-minutes=6"', 4, "max-minutes=6 is more than pool a"),
        (POOL + 'images = ["b"]', 3, "pools.0 (a): images.0: b is in no package; the images are debian-12"),
        (POOL + POOL, 3, "pools: a stands there twice; keep one pool of each name"),
        (PACKAGES + PACKAGES + POOL, 16, "packages: image=debian-12 with cpu=1 and ram=1 stands"),
        (
            WHOLE.replace("vcpus = 4", "vcpus = 64"), 9,
            "packages.1: no host has room for image=debian-12 with cpu=64 and ram=8; hosts have 8 CPUs",
        ),
        (
            WHOLE.replace("vcpus = 4", 'architecture = "arm64"\nvcpus = 4'), 12,
            "packages.1.architecture: arm64 is not built yet; take x86_64",
        ),
        (POOL + 'defaults = "arch=arm64"', 3, "defaults: arch=arm64 is not built yet; ask for arch=x86_64, or leave"),
        (WHOLE.replace(SMALL, "sha256:0"), 4, "packages.0.digest: String should match pattern"),
        (POOL + 'package = "ubuntu"', 3, "package: ubuntu is neither the digest nor the image of a package"),
        (POOL + 'network = "nat"\ndefaults = "network=relay"', 3, "network: nat is not what defaults say, network="),
        (POOL + 'time_zone = "Europe/Bonn"', 3, "time_zone: 'Europe/Bonn' is no time zone; write one as Europe/Berlin"),
        (POOL + 'time_zone = "../UTC"', 3, "time_zone: '../UTC' is no time zone"),
        (HALF_A_DAY + '{ when = "8-18" , min_ready = 1 }]', 5, "schedules.1.when: '8-18' is no window; write DAYS"),
        (HALF_A_DAY + '{ when = "* 08:00-18:00" }]', 5, "schedules.1: it changes nothing; give it min_ready or"),
        (POOL + '[[pools.schedules]]\nwhen="* 00:00-24:00"\nmin_ready = 9', 5, "9 hosts are more than there may be"),
        (POOL + 'providers = ["aws", "azure"]', 3, "pools.0.providers.1: Input should be 'local', 'aws' or 'hetzner'"),
        (POOL + 'zones = ["a", "b", "a"]', 3, "zones.2: a stands there twice; name each once, the best first"),
        (POOL + 'market = "cheap"', 3, "pools.0.market: Input should be 'spot', 'spot-then-on-demand' or 'on-demand'"),
        (POOL + "runners_per_repository = 0", 3, "runners_per_repository: Input should be greater than or equal to 1"),
        (PAID, 3, "budget: what a host costs is not known; set SPOT_RUNNER_HOST_PRICE to the price of one hour"),
        (PAID.replace("EUR", "USD"), 3, "budget.currency: USD is not the currency of SPOT_RUNNER_HOST_PRICE; write"),
        (PAID.replace("5", "0"), 3, "pools.0.budget.per_day: Input should be greater than 0, not 0"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_one_sentence_with_its_line(
    tmp_path: Path, text: str, line: int, says: str
) -> None:
    with pytest.raises(Wrong) as refused:
        open_policy(settings(tmp_path, text))
    sentences = [problem.told(tmp_path / "pools.toml") for problem in refused.value.problems]
    (found, *more) = [one for one in sentences if says in one]
    assert not more
    assert found.startswith(f"{tmp_path / 'pools.toml'}:{line}: "), found
    assert not any("\n" in one for one in sentences)
    assert str(refused.value) == sentences[0]


def test_everything_that_is_wrong_is_told_in_the_order_of_the_lines(tmp_path: Path) -> None:
    text = POOL + 'images = ["b"]\nkeys = ["cpus"]\ntime_zone = "x"\n[[pools]]\nname = "a"\n'
    with pytest.raises(Wrong) as refused:
        open_policy(settings(tmp_path, text))
    assert [problem.line for problem in refused.value.problems] == [1, 3, 4, 5, 6]


def test_a_file_that_is_nested_without_end_is_refused() -> None:
    (problem,) = problems_of(f"a = {'[' * 50_000}")
    assert problem.sentence.startswith("not TOML that anybody could read: it is nested too deeply")


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "pools.toml"
    file.write_bytes(b'[[pools]]\nname = "\xff"\n')
    with pytest.raises(Wrong, match=r"pools.toml:2: not TOML: it is not in UTF-8; save it so"):
        open_policy(ControlSettings(package=SMALL, pools_file=file))


@given(st.text(max_size=200) | st.binary(max_size=200))
def test_no_content_makes_it_fail_in_another_way(content: str | bytes) -> None:
    raw = content.encode(errors="replace") if isinstance(content, str) else content
    with suppress(Wrong):
        policy_of(Path("pools.toml"), raw, ControlSettings(package=SMALL))


WORDS = st.sampled_from(["ci", "Europe/Berlin", "* 00:00-24:00", "cpu=1", "EUR", SMALL, "debian-12", "local"])
ATOMS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | WORDS
FLAT = ATOMS | st.lists(ATOMS, max_size=3) | st.dictionaries(st.sampled_from(["when", "min_ready", "x"]), ATOMS)
KEYS_AND_VALUES = st.dictionaries(
    st.sampled_from([*fields.Pool.model_fields, "other"]), FLAT | st.lists(FLAT, max_size=3), max_size=6
)


@given(st.lists(KEYS_AND_VALUES, max_size=3))
def test_no_field_makes_it_fail_in_another_way(pools: list[dict[str, object]]) -> None:
    text = "".join(
        "[[pools]]\n" + "".join(f"{key} = {toml(value)}\n" for key, value in pool.items() if value is not None)
        for pool in pools
    )
    problems = problems_of(text)
    lines = text.count("\n") + 1
    assert all(1 <= problem.line <= lines and "\n" not in problem.sentence for problem in problems)


def problems_of(text: str) -> tuple[Problem, ...]:
    try:
        policy_of(Path("pools.toml"), text.encode(), ControlSettings(package=SMALL))
    except Wrong as error:
        return error.problems
    return ()


def toml(value: object) -> str:
    """Write a value as TOML."""
    match value:
        case bool():
            return str(value).lower()
        case float():
            return repr(value)
        case list():
            return "[" + ", ".join(toml(one) for one in value if one is not None) + "]"
        case dict():
            return "{" + ", ".join(f"{key} = {toml(one)}" for key, one in value.items() if one is not None) + "}"
        case _:
            return json.dumps(value, ensure_ascii=True)


def test_a_pools_rules_are_kept(tmp_path: Path) -> None:
    text = f"""
    [[pools]]
    name = "ci"
    package = "debian-12"
    network = "nat"
    providers = ["aws", "local"]
    zones = ["eu-central-1b", "eu-central-1a"]
    market = "spot-then-on-demand"
    min_ready = 1
    runners_per_repository = 2
    time_zone = "Europe/Berlin"
    budget = {{ per_day = 12.5, currency = "EUR" }}
    schedules = [ {{ when = "mon-fri 08:00-18:00", min_ready = 3 }} ]
    [[pools]]
    name = "exact"
    package = "{SMALL}"
    """
    policy = open_policy(settings(tmp_path, text, host_price=0.5))
    pool = policy.pools[0]
    market = Sources(("aws", "local"), ("eu-central-1b", "eu-central-1a"), Market.SPOT_THEN_ON_DEMAND)
    assert (pool.sources, str(pool.budget), pool.defaults.network) == (market, "12.5 EUR", GuestNetwork.NAT)
    assert (pool.min_ready, pool.runners_max) == (1, 2)
    monday = datetime(2026, 11, 30, 7, 0, tzinfo=UTC)  # eight o'clock in Berlin
    assert (pool.min_ready_at(monday), pool.min_ready_at(monday - timedelta(minutes=1))) == (3, 1)
    assert pool.runners_max_at(monday) == 2
    assert [len(list(policy.offered(one))) for one in policy.pools] == [1, 1]


def test_a_package_by_its_digest_is_the_only_one(tmp_path: Path) -> None:
    policy = open_policy(settings(tmp_path, PACKAGES + POOL + f'package = "{LARGE}"'))
    assert terms(policy, "spot-runner").package == LARGE
    assert isinstance(judge(["spot-runner/cpu=1"], Origin("octo-org/hello"), policy), Unserved)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"missing.toml: No such file or directory; name a policy file"):
        open_policy(ControlSettings(package=SMALL, pools_file=tmp_path / "missing.toml"))


def test_a_pool_says_with_whom_its_runners_are_registered(tmp_path: Path) -> None:
    text = f"""{WHOLE}register = "organization"\nrunner_group = "GPU builders"\n"""
    usual, shared = open_policy(settings(tmp_path, text)).pools
    assert (usual.level, usual.runner_group) == (Level.REPOSITORY, None)
    assert (shared.level, shared.runner_group) == (Level.ORGANIZATION, "GPU builders")
    policy = open_policy(settings(tmp_path, text))
    assert terms(policy, "spot-runner").level is Level.REPOSITORY
    assert terms(policy, "spot-runner", "other/hello").level is Level.ORGANIZATION
    assert policy.may_share("other/hello")
    narrow = text.replace("forks = true", 'repositories = ["octo-org/a"]')
    assert not open_policy(settings(tmp_path, narrow)).may_share("octo-org/hello")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (
            'runner_group = "builders"',
            (
                "pools.1 (open): runner_group: 'builders' is a group of an organization; write register = "
                '"organization" beside it, or remove it'
            ),
        ),
        (
            'register = "enterprise"',
            "pools.1.register: Input should be 'repository' or 'organization', not 'enterprise'; see docs/pools.md",
        ),
    ],
)
def test_what_is_wrong_with_a_registration_is_one_sentence(tmp_path: Path, line: str, sentence: str) -> None:
    with pytest.raises(Wrong) as caught:
        open_policy(settings(tmp_path, f"{WHOLE}{line}\n"))
    number = f"{WHOLE}{line}".count("\n") + 1
    assert caught.value.problems == (Problem(number, sentence),)
