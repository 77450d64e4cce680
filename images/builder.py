"""What a machine of a cloud is told that makes itself an image: it installs what a host is, and switches itself off.

The same packages, files and settings as an image made here has, on the cloud's own Debian and with its boot loader. It
carries no secret but the URL of a voucher for runners' packages, if it brings any along: good for an hour, and removed
once they are here. A machine that is off is done; one that could not do it says why on its console, and stays on.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from images.order import Order
from images.root import (
    ENABLED,
    PREFERENCES,
    PROGRAM,
    SERVICE,
    SHELF,
    SUFFIXES,
    description,
    packages_of,
    settings_files,
)
from workers.domain.errors import BadInput
from workers.domain.host_class import MONITOR_MIN
from workers.domain.user_data import FIRST_LINE, USER_DATA_MAX

SOURCE: Final = "/opt/spot-runner-source"
SCRIPT: Final = "/root/spot-runner-image"
VOUCHER: Final = "/root/spot-runner-voucher"
FAILED: Final = "spot-runner-image: failed"
# The cloud's image brings its own.
LOADERS: Final = frozenset({"grub-pc-bin", "grub-common"})
_REPOSITORY: Final = re.compile(r"https://[A-Za-z0-9._~/-]+")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Program:
    """Whose daemon goes into the image."""

    repository: str
    revision: str

    def __post_init__(self) -> None:
        if not _REPOSITORY.fullmatch(self.repository):
            raise BadInput(
                f"--repository {self.repository}: write an https address of a git repository, without a user"
            )
        if not _COMMIT.fullmatch(self.revision):
            raise BadInput(f"--revision {self.revision}: write all 40 hex digits of a commit")


def builder_user_data(order: Order, program: Program) -> str:
    """Return the user data of such a machine."""
    described = description(order, {"repository": program.repository, "revision": program.revision})
    files = {
        **settings_files(order),
        "etc/spot-runner/image.json": described,
        "etc/default/grub.d/90-spot-runner.cfg": _grub(order),
        "etc/apt/preferences.d/spot-runner": PREFERENCES.read_text(),
    }
    written = [{"path": f"/{name}", "permissions": "0644", "content": content} for name, content in files.items()]
    script = {"path": SCRIPT, "permissions": "0700", "content": script_of(order, program)}
    return _cloud_config({"write_files": [*written, script], "runcmd": [[SCRIPT]]})


def with_voucher(user_data: str, url: str) -> str:
    """Return the user data of a machine that is told where its voucher is, too, in a file that only root reads.

    The URL is another one each time, so what an image is named after is the user data without it.
    """
    told = json.loads(user_data.partition("\n")[2])
    told["write_files"].append({"path": VOUCHER, "permissions": "0600", "content": f"{url}\n"})
    return _cloud_config(told)


def script_of(order: Order, program: Program) -> str:
    """Return what the machine runs, as a script of sh."""
    packages = " ".join([*(name for name in packages_of(order.kernel) if name not in LOADERS), "git", "curl"])
    source, python = SOURCE, f"/{PROGRAM}/bin/python"
    monitor = ".".join(map(str, MONITOR_MIN))
    return f"""#!/bin/sh
set -eu
trap 'test $? = 0 || echo "{FAILED} at: $step" | tee /dev/console' EXIT
export DEBIAN_FRONTEND=noninteractive
step="the distribution's packages"
apt-get update -q
apt-get install -y -q --no-install-recommends {packages}
step="a QEMU of {monitor} or newer, which the base image's package sources do not have; name one of Debian 13"
dpkg --compare-versions "$(dpkg-query -W -f '${{Version}}' qemu-system-x86)" ge 1:{monitor}
step="the source"
git clone --quiet {shlex.quote(program.repository)} {source}
git -C {source} checkout --quiet --detach {program.revision}
{_kernel(order)}step="the program"
python3 -m venv /{PROGRAM}
{python} -m pip install --quiet --disable-pip-version-check --require-hashes -r {source}/requirements.txt
{python} -m pip install --quiet --disable-pip-version-check --no-deps {source}
/{PROGRAM}/bin/spot-runner host --help >/dev/null
{_packages(order)}step="what a host is"
cp -rT --no-preserve=ownership {source}/images/rootfs/files /
cp {source}/infra/systemd/{SERVICE} /etc/systemd/system/
update-grub
systemctl enable --quiet {" ".join(ENABLED)}
systemctl mask --quiet ssh.service ssh.socket
step="nothing that tells which machine this was"
{source}/images/rootfs/customize.sh /
rm -rf {source} {SCRIPT} /root/.ssh /home/*/.ssh /etc/ssh/ssh_host_*
cloud-init clean --logs --seed --machine-id
sync
systemctl poweroff
"""


def _packages(order: Order) -> str:
    """Return the lines that fetch runners' packages; if that fails, the console has the sentence, too."""
    if not order.fetched:
        return ""
    fetch = f"/{PROGRAM}/bin/spot-runner package fetch --voucher {VOUCHER} --into /{SHELF} {' '.join(order.fetched)}"
    return f"""step="the runners' packages"
exec 3>&1
said=$({fetch} 2>&1 >&3) || {{ step="$step: $said"; exit 1; }}
rm {VOUCHER}
"""


def _kernel(order: Order) -> str:
    """Return the lines that install a kernel from a package of its own: it is the one that was pinned, and alone."""
    if order.kernel.kind == "distribution":
        return ""
    url, package = shlex.quote(order.kernel.package_url or ""), f"/root/kernel{SUFFIXES[order.kernel.kind]}"
    return f"""step="the kernel's package, whose SHA-256 is pinned"
curl -fsSL --retry 5 -o {package} {url}
echo "{order.kernel.sha256}  {package}" | sha256sum --check --quiet
step="the kernel"
{SOURCE}/images/rootfs/kernel.sh / {package}
rm {package}
"""


def _cloud_config(told: Mapping[str, Any]) -> str:
    text = f"{FIRST_LINE}\n{json.dumps(told, indent=1)}\n"
    size = len(text.encode())
    if size > USER_DATA_MAX:
        raise BadInput(
            f"--setting, --package: the builder would be told {size} bytes, and clouds take {USER_DATA_MAX}; name fewer"
        )
    return text


def _grub(order: Order) -> str:
    arguments = " ".join(("panic=10", *order.kernel.arguments))
    return f'GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT {arguments}"\nGRUB_TIMEOUT=0\n'
