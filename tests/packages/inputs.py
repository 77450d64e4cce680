"""What a package is made of here: an archive laid out as actions/runner's, an OCI layout, and a recipe for both."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.unit.oci_image import write_image
from tests.unit.runner_archive import FILES, NAME, write_archive
from workers.host.debian import make_tar
from workers.host.graft import PYTHON

VM: Final = Path(__file__).parents[2] / "runner-vm"
LISTENER: Final = Path(__file__).with_name("listener.py")
BASE: Final = "github-runner"
NAMESERVER: Final = "198.18.0.10"
SUITE: Final = "bookworm"
# An image as somebody would make it for his jobs: a shell, a sudo and nothing that a guest needs.
IMAGE_PACKAGES: Final = ("bash", "sudo")
VARIABLE: Final = ("SPOT_RUNNER_TRIED", "a variable of the image")
IMAGE_PATH: Final = "/opt/tried/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# The guest's own Python may be Debian's, or the one that comes with the agent.
START: Final = f"""#!/bin/sh
here="$( cd -P "$( dirname "$0" )" && pwd )"
for python in {PYTHON} /usr/bin/python3; do
    [ -x "$python" ] && exec "$python" -I "$here/listener.py" "$@"
done
echo "no Python to run $here/listener.py with" >&2
exit 1
"""
# Software emulation must bear it; the rest of the recipe is the base's.
RECIPE: Final = """\
# The recipe `{base}` as it is, for a smaller machine.
base = "{base}"
name = "{name}"
nameservers = ["{nameserver}"]

[machine]
vcpus = 1
memory_mib = 1536
disk_mib = 6144
"""


def archive_files() -> Mapping[str, tuple[str, int]]:
    """Return what is in the archive: the layout of actions/runner's, and the rehearsal's runner in its listener."""
    program = {
        f"bin/rehearsal_runner/{path.name}": (path.read_text(), 0o644)
        for path in sorted((VM / "rehearsal_runner").glob("*.py"))
    }
    return {**FILES, "bin/Runner.Listener": (START, 0o755), "bin/listener.py": (LISTENER.read_text(), 0o644), **program}


def make_archive(folder: Path) -> Path:
    """Write the archive and return it."""
    return write_archive(folder / NAME, files=archive_files())


def make_recipe(folder: Path, name: str) -> Path:
    """Write a recipe whose base is ours, in a copy of `runner-vm`, so that it is pinned there and not in the tree."""
    home = folder / "runner-vm"
    shutil.copytree(VM, home, ignore=shutil.ignore_patterns("__pycache__"))
    recipe = home / "packages" / f"{name}.toml"
    recipe.write_text(RECIPE.format(base=BASE, name=name, nameserver=NAMESERVER))
    return recipe


def make_layout(folder: Path, kept: Path) -> Path:
    """Write an OCI layout whose one layer is a small Debian without systemd; what Debian gave stays in `kept`."""
    key = hashlib.sha256(f"{SUITE} {IMAGE_PACKAGES}".encode()).hexdigest()[:16]
    root = kept / f"image-{key}.tar"
    if not root.exists():
        kept.mkdir(parents=True, exist_ok=True)
        make_tar(root, SUITE, IMAGE_PACKAGES, _no_hooks(folder))
    return write_image(folder / "layout", root.read_bytes(), [f"PATH={IMAGE_PATH}", "=".join(VARIABLE)])


def _no_hooks(folder: Path) -> Path:
    """Make the two scripts that are run around the installation, which change nothing of a stranger's image."""
    hooks = folder / "hooks"
    hooks.mkdir()
    for name in ("prepare.sh", "customize.sh"):
        (hooks / name).write_text("#!/bin/sh\n")
        (hooks / name).chmod(0o755)
    return hooks
