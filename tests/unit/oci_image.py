"""OCI images made by hand: a layout with one layer, as `skopeo copy … oci:DIR` leaves it."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

DISTRIBUTION = {
    "bin/sh": "#!not run here\n",
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nalice:x:1001:1001::/home/alice:/bin/sh\n",
    "etc/group": "root:x:0:\nalice:x:1001:\n",
    "etc/os-release": "ID=example\n",
    "usr/local/bin/tool": "#!/bin/sh\n",
}


def write_layout(
    folder: Path,
    files: Mapping[str, str] = DISTRIBUTION,
    links: Mapping[str, str] | None = None,
    architecture: str = "amd64",
    environment: Sequence[str] = ("PATH=/usr/local/go/bin:/usr/bin:/bin", "GOPATH=/go"),
) -> Path:
    """Write a layout with one image of these files and symbolic links."""
    return write_image(folder, _layer(files, links or {}), environment, architecture)


def write_image(folder: Path, layer: bytes, environment: Sequence[str], architecture: str = "amd64") -> Path:
    """Write a layout with one image of one layer, which is a tar."""
    (folder / "blobs/sha256").mkdir(parents=True)
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Env": list(environment)},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        "history": [{"created_by": "by hand"}],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": _blob(folder, json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json"),
        "layers": [_blob(folder, layer, "application/vnd.oci.image.layer.v1.tar")],
    }
    named = _blob(folder, json.dumps(manifest).encode(), "application/vnd.oci.image.manifest.v1+json")
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [named]}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return folder


def _layer(files: Mapping[str, str], links: Mapping[str, str]) -> bytes:
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(text.encode()), 0o755
            tar.addfile(entry, io.BytesIO(text.encode()))
        for name, target in links.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)
    return layer.getvalue()


def _blob(folder: Path, content: bytes, kind: str) -> dict[str, Any]:
    digest = hashlib.sha256(content).hexdigest()
    (folder / "blobs/sha256" / digest).write_bytes(content)
    return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(content)}
