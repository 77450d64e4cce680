"""`spot-runner image`: pin the inputs of host images, and make them."""

from __future__ import annotations

from pathlib import Path

from images import versions as inputs
from images.pinning import at_hand, check_can_be_pinned, read_pin, write_pin


def run_pin(source: str, package: str | None, versions: Path | None) -> str:
    """Read the package of a kernel, write into the versions file which one it is, and say so."""
    file = versions or inputs.FILE
    kernel = inputs.load(file).named_kernel(source)
    check_can_be_pinned(source, kernel, package)
    with at_hand(package or kernel.url or "") as read:
        pin = read_pin(kernel, read)
    write_pin(file, source, pin)
    return f"{file}: {source} is {pin.version}, sha256:{pin.sha256}"
