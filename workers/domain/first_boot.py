"""What a machine is told so that it becomes a control plane by itself: cloud-init's user data. Pure.

It carries no secret: whoever can ask the machine's metadata service reads it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from workers.domain.errors import BadInput

SETTINGS: Final = "/etc/spot-runner"
SOURCE: Final = "/opt/spot-runner-source"
_NAME: Final = re.compile(r"(?=.{4,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,63}")
_REPOSITORY: Final = re.compile(r"https://[A-Za-z0-9._~/-]+")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Program:
    """What is installed, and under which name it is reached."""

    public_name: str
    source: str
    """A git repository."""
    revision: str
    """A commit."""
    package: str
    """The digest of what runners start from."""

    def __post_init__(self) -> None:
        for place, pattern, what in (
            ("public_name", _NAME, "a full name in small letters, such as runners.example.org"),
            ("source", _REPOSITORY, "an https address of a git repository, without user and password"),
            ("revision", _COMMIT, "all 40 hex digits of a commit"),
            ("package", _DIGEST, "sha256: and 64 hex digits, as spot-runner package build prints it"),
        ):
            value = getattr(self, place)
            if not pattern.fullmatch(value):
                raise BadInput(f"{place}: {value!r} will not do; give {what}")


def user_data(program: Program, files: Mapping[str, Mapping[str, str]], before: tuple[str, ...] = ()) -> str:
    """Return user data that writes these environment files below /etc/spot-runner and runs infra/install.

    `before` are shell commands that run after the files are there. A value is quoted as systemd and a shell read it.
    """
    written = [
        {"path": f"{SETTINGS}/{name}", "permissions": "0600", "content": _environment(values)}
        for name, values in files.items()
    ]
    told = {
        "package_update": True,
        "packages": ["git", "curl"],
        "write_files": written,
        "runcmd": [
            *(["sh", "-euc", command] for command in before),
            ["git", "clone", "--quiet", program.source, SOURCE],
            ["git", "-C", SOURCE, "checkout", "--quiet", "--detach", program.revision],
            [f"{SOURCE}/infra/install"],
        ],
    }
    # JSON is YAML, but for how it escapes what needs two words in UTF-16.
    return f"#cloud-config\n{json.dumps(told, indent=1, ensure_ascii=False)}\n"


def _environment(values: Mapping[str, str]) -> str:
    for name, value in values.items():
        if "'" in value or not value.isprintable():
            raise BadInput(f"{name}: {value!r} has a quote or a line's end in it; leave them out")
    return "".join(f"{name}='{value}'\n" for name, value in values.items())
