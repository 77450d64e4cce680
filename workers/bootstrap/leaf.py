"""The control plane's own certificate: a file that is written anew long before it ends."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Final

from workers.identity import Authority, write_leaf
from workers.settings import ControlSettings

# A leaf lives for 24 hours; two renewals may fail before it ends.
RENEWAL_INTERVAL: Final = timedelta(hours=8)


def renewal(settings: ControlSettings, name: str) -> Callable[[], None]:
    """Write our leaf into `home/<name>` and return what writes it anew."""
    authority = Authority.open(settings.home / "ca")

    def renew() -> None:
        leaf = authority.control_leaf("control")
        write_leaf(settings.home / name, leaf, authority.control_ca, authority.hosts_ca)

    renew()
    return renew
