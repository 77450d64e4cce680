"""The policy file: what it says is what jobs get, and what is wrong with it is one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from workers.bootstrap.explain import split_labels
from workers.bootstrap.pools import open_policy
from workers.domain.errors import BadInput
from workers.domain.labels import KEYS, Interrupt, Unserved, reading
from workers.domain.overlay import GuestNetwork
from workers.domain.pools import Origin, Policy, Terms
from workers.domain.runner import Shape
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
    page = Path(__file__).parents[2].joinpath("docs/labels.md").read_text()
    blocks = dict(part.split("\n", 1) for part in page.split("```")[1::2])
    policy = open_policy(settings(tmp_path, blocks["toml"]))
    assert [pool.name for pool in policy.pools] == ["ci", "strangers"]
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


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[pools]", "not TOML: Expected ']]' at the end of an array declaration (at "),
        ("", "pools: Field required"),
        ("pools = []", "pools: List should have at least 1 item"),
        ('[[pools]]\nname = "A b"', "pools.0.name: String should match pattern"),
        ('[[pools]]\nname = "a"\nfork = true', "pools.0.fork: Extra inputs are not permitted, not True"),
        ('[[pools]]\nname = "a"\nforks = "yes"', "pools.0.forks: Input should be a valid boolean, not 'yes'"),
        ('[[pools]]\nname = "a"\ncpu_max = 0', "pools.0.cpu_max: Input should be greater than or equal to 1, not 0"),
        ('[[pools]]\nname = "a"\nminutes_max = 9999', "pools.0.minutes_max: Input should be less than or"),
        ('[[pools]]\nname = "a"\nrepositories = ["a/b/c"]', "pools.0.repositories.0: String should match pattern"),
        ('[[pools]]\nname = "a"\nkeys = ["cpus"]', "pools.0 (a): keys: 'cpus' is none; the keys are cpu, ram"),
        ('[[pools]]\nname = "a"\ndefaults = "cpu=x"', "pools.0.defaults: 'spot-runner/cpu=x': 'x' is no value for cpu"),
        ('[[pools]]\nname = "a"\ndefaults = "pool=b"', "pools.0 (a): defaults: pool is no default of a pool"),
        ('[[pools]]\nname = "a"\ndefaults = "cpu=2"', "pools.0 (a): defaults: pool a has no package of cpu=2"),
        ('[[pools]]\nname = "a"\nminutes_max = 5\ndefaults = "max-minutes=6"', "max-minutes=6 is more than pool a"),
        ('[[pools]]\nname = "a"\nimages = ["b"]', "pools.0 (a): images: b is in no package; the images are debian-12"),
        ('[[pools]]\nname = "a"\n[[pools]]\nname = "a"', "pools: a stands there twice; keep one pool of each name"),
        (PACKAGES + PACKAGES + '[[pools]]\nname = "a"', "packages: image=debian-12 with cpu=1 and ram=1 stands"),
        (
            WHOLE.replace("vcpus = 4", "vcpus = 64"),
            "packages.1: no host has room for image=debian-12 with cpu=64 and ram=8; hosts have 8 CPUs",
        ),
        (WHOLE.replace(SMALL, "sha256:0"), "packages.0.digest: String should match pattern"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_one_sentence_with_its_place(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(BadInput) as refused:
        open_policy(settings(tmp_path, text))
    sentence = str(refused.value)
    assert sentence.startswith(f"{tmp_path / 'pools.toml'}: ")
    assert says in sentence
    assert "\n" not in sentence


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"missing.toml: No such file or directory; name a policy file"):
        open_policy(ControlSettings(package=SMALL, pools_file=tmp_path / "missing.toml"))
