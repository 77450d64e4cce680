"""Reads versions.toml: every input of a host image, pinned by hash or known not to be.

Nothing here fetches anything. A file that does not say what it must is refused
with one sentence that names the entry, the field and the remedy.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError, model_validator

from images.debians import OLDEST
from workers.domain.errors import BadInput
from workers.domain.host_class import Acceleration

FILE: Final = Path(__file__).with_name("versions.toml")
FORMAT: Final = 1

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Https = Annotated[str, StringConstraints(pattern=r"^https://")]
CloudName = Literal["aws", "hetzner", "local-qcow2"]


class Kernel(BaseModel):
    """One kernel that hosts may boot."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    acceleration: Literal[Acceleration.KVM, Acceleration.PVM]
    kind: Literal["distribution", "rpm-repository", "deb"]
    architecture: Literal["x86_64"]
    clouds: tuple[CloudName, ...]
    distribution: str = OLDEST
    """Whose it is, or which one it is put on."""
    package: str | None = None
    url: Https | None = None
    version: str | None = None
    """Of the pinned file, as it says itself; written together with `sha256`."""
    sha256: Sha256 | None = None
    file: Https | None = None
    """Where the pinned file of a repository is, unless it was pinned from a file of somebody's own."""
    arguments: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    blacklist: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _names_its_source(self) -> Kernel:
        if self.kind == "distribution" and not ("distribution" in self.model_fields_set and self.package):
            raise ValueError("a kernel of a distribution needs `distribution` and `package`")
        if self.file and self.kind != "rpm-repository":
            raise ValueError(f"a kernel of kind {self.kind!r} has no `file`; its `url` leads to the package")
        if self.kind != "distribution" and not self.url:
            raise ValueError(f"a kernel of kind {self.kind!r} needs a `url`")
        return self

    @property
    def is_pinned(self) -> bool:
        """A distribution's package is checked by the distribution's own signed index; everything else needs a hash."""
        return self.kind == "distribution" or self.sha256 is not None

    @property
    def package_url(self) -> str | None:
        """Where the package itself can be fetched; None if nobody has said, or it is the distribution's."""
        return {"deb": self.url, "rpm-repository": self.file}.get(self.kind)


class Versions(BaseModel):
    """The whole file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1]
    kernel: dict[str, Kernel]

    def named_kernel(self, name: str) -> Kernel:
        """Return the kernel of this name, or raise `BadInput`."""
        if name not in self.kernel:
            raise BadInput(f"versions.toml has no kernel {name!r}; it has {', '.join(sorted(self.kernel))}")
        return self.kernel[name]

    def pinned_kernel(self, name: str) -> Kernel:
        """Return a kernel that an image may be built from, or raise `BadInput`."""
        kernel = self.named_kernel(name)
        if not kernel.is_pinned:
            raise BadInput(
                f"kernel {name!r} in versions.toml is not pinned: fetch its package, and let "
                f"`spot-runner image pin {name} FILE` (or its https URL) read it and write `sha256`"
            )
        return kernel


def load(path: Path = FILE) -> Versions:
    """Read and check a versions file. Raises `BadInput`."""
    try:
        return Versions.model_validate(tomllib.loads(path.read_text()))
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"{path.name} is not TOML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise BadInput(f"{path.name}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
