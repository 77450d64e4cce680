from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest

from workers.domain.errors import BadInput
from workers.egress import NEVER, NEVER6
from workers.host.recipe import read_recipe

DEBIAN = Path(__file__).parents[2] / "runner-vm/packages/debian-12.toml"


def test_the_recipe_in_the_tree_is_whole() -> None:
    recipe = read_recipe(DEBIAN)

    assert recipe.name == "debian-12"
    assert recipe.home == DEBIAN.parents[1]
    assert "python3" in recipe.rootfs.packages
    assert all((recipe.home / source).is_dir() for source in recipe.runner.sources)


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("vcpus = 1", 'vcpus = "one"', "machine.vcpus"),
        ("vcpus = 1", "vcpu = 1", "machine.vcpu"),
        ('suite = "bookworm"', "", "rootfs.suite: "),
        ("[runner]", "[runners]", "it has no [runner]"),
        ("vcpus = 1", "vcpus = = 1", "not TOML"),
        ('released = "', 'released = "yesterday ', "runner.released"),
        ("[machine]", 'nameservers = ["dns.example"]\n[machine]', "nameservers.0"),
        ("[machine]", "nameservers = []\n[machine]", "nameservers: "),
        ("[machine]", 'nameservers = ["::1", "::2", "::3", "::4"]\n[machine]', "nameservers: "),
    ],
)
def test_a_recipe_that_is_wrong_is_refused_by_field(tmp_path: Path, before: str, after: str, says: str) -> None:
    text = DEBIAN.read_text()
    assert before in text
    path = tmp_path / "packages" / "wrong.toml"
    path.parent.mkdir()
    path.write_text(text.replace(before, after, 1))

    with pytest.raises(BadInput) as refused:
        read_recipe(path)
    assert says in str(refused.value)
    assert str(path) in str(refused.value)


def test_a_recipe_that_is_not_there_is_refused_with_an_example(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"No such file or directory; name a recipe, for example"):
        read_recipe(tmp_path / "none.toml")


def test_a_recipe_takes_over_its_base_and_adds_packages() -> None:
    recipe = read_recipe(DEBIAN.with_name("github-runner.toml"))

    assert (recipe.machine.vcpus, recipe.machine.memory_mib, recipe.machine.disk_mib) == (2, 4096, 14336)
    assert {"git", "curl", "jq", "docker.io", "sudo", "libicu72"} <= set(recipe.rootfs.packages)
    assert recipe.name == "github-runner"
    with pytest.raises(BadInput, match="is not pinned"):
        _ = recipe.release


def test_a_recipe_of_one_s_own_has_another_size(tmp_path: Path) -> None:
    for name in ("debian-12-base.toml", "github-runner.toml"):
        (tmp_path / name).write_text(DEBIAN.with_name(name).read_text())
    path = tmp_path / "large.toml"
    path.write_text(
        'base = "github-runner"\nname = "large"\n[machine]\nvcpus = 8\n[rootfs]\npackages = ["git", "gcc"]\n'
    )

    recipe = read_recipe(path)

    assert (recipe.machine.vcpus, recipe.machine.memory_mib) == (8, 4096)
    assert recipe.rootfs.packages.count("git") == 1
    assert recipe.rootfs.packages[-1] == "gcc"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('base = "self"', "at most 4 in a row"),
        ('base = "../etc/passwd"', "the name of a recipe beside this one"),
        ('base = "none"', "No such file or directory"),
        ('base = "debian-12"\n[machine]\nvcpus = 0', "machine.vcpus"),
        ('base = "debian-12"\n[machine]\nmemory_mib = 64', "machine.memory_mib"),
        ('base = "debian-12"\n[machine]\ndisk_mib = 1', "machine.disk_mib"),
        ('base = "debian-12"\nname = "../x"', "name: "),
        ('base = "debian-12"\n[runner]\narchive = "https://x/{version}"', "stand in [runner.pinned] alone"),
        ('base = "debian-12"\n[runner.pinned]\nversion = "1.0"\nreleased = 2026-01-01\nsha256 = "ab"', "sha256"),
        ('base = "debian-12-base"', "only a base for others"),
        ('base = "debian-12-base"\n[runner]\nname = "x"\ncommand = ["x"]', "needs `version` and `released`"),
    ],
)
def test_a_recipe_that_cannot_be_built_is_refused(tmp_path: Path, text: str, says: str) -> None:
    for name in ("debian-12.toml", "debian-12-base.toml"):
        (tmp_path / name).write_text(DEBIAN.with_name(name).read_text())
    (tmp_path / "self.toml").write_text(text)

    with pytest.raises(BadInput) as refused:
        read_recipe(tmp_path / "self.toml")
    assert says in str(refused.value)


def test_guests_ask_name_servers_that_they_reach_and_a_recipe_may_name_its_own(tmp_path: Path) -> None:
    closed = [ip_network(network) for network in (*NEVER, *NEVER6)]
    by_default = read_recipe(DEBIAN).nameservers
    own = tmp_path / "packages/own.toml"
    own.parent.mkdir()
    own.write_text(
        DEBIAN.read_text().replace("[machine]", 'nameservers = ["192.0.2.53", "2001:db8::53"]\n[machine]', 1)
    )

    assert by_default
    assert [server for server in by_default if any(server in network for network in closed)] == []
    assert [str(server) for server in read_recipe(own).nameservers] == ["192.0.2.53", "2001:db8::53"]
