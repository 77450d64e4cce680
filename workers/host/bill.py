"""The bill of materials of a guest: what is inside, as CycloneDX 1.5 (JSON), the same for the same contents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

SPEC: Final = "1.5"


@dataclass(frozen=True)
class Part:
    """One thing inside."""

    kind: str
    """CycloneDX's type: `library`, `application`, `container` or `operating-system`."""
    name: str
    version: str
    purl: str | None = None
    sha256: str | None = None

    def component(self) -> dict[str, Any]:
        """Return it as CycloneDX writes it."""
        written: dict[str, Any] = {"type": self.kind, "name": self.name, "version": self.version}
        if self.purl is not None:
            written |= {"bom-ref": self.purl, "purl": self.purl}
        if self.sha256 is not None:
            written["hashes"] = [{"alg": "SHA-256", "content": self.sha256}]
        return written


def debian_part(name: str, version: str, architecture: str, distribution: str) -> Part:
    """Return a package of Debian or of a distribution that is made of it (its ID in /etc/os-release)."""
    coded = quote(version, safe=".~-")
    return Part("library", name, version, f"pkg:deb/{distribution}/{quote(name)}@{coded}?arch={architecture}")


def bill_of(name: str, parts: list[Part]) -> Mapping[str, Any]:
    """Return the bill of a package of this name; the order of the parts decides nothing."""
    return {
        "bomFormat": "CycloneDX",
        "specVersion": SPEC,
        "version": 1,
        "metadata": {"component": {"type": "operating-system", "bom-ref": name, "name": name}},
        "components": [
            part.component() for part in sorted(parts, key=lambda part: (part.kind, part.name, part.version))
        ],
    }
