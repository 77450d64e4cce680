from __future__ import annotations

from pathlib import Path

import pytest

from workers.domain.errors import BadInput
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
        ("[runner]", "[runners]", "runner: "),
        ("vcpus = 1", "vcpus = = 1", "not TOML"),
        ('released = "', 'released = "yesterday ', "runner.released"),
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
