"""The control plane's own certificate, written anew long before it ends, and the relay's, which the relay keeps."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Final

import structlog

from workers.domain.errors import SpotError
from workers.identity import RELAY, Authority, write_leaf
from workers.relay.client import RelayClient
from workers.settings import ControlSettings

# A leaf lives for 24 hours; two renewals may fail before it ends.
RENEWAL_INTERVAL: Final = timedelta(hours=8)
# The relay may be away at any one time, and so may we: whoever is told so often has most of a day in hand.
RELAY_INTERVAL: Final = timedelta(minutes=30)

log: Final = structlog.get_logger(__name__)


def renewal(settings: ControlSettings, name: str) -> Callable[[], None]:
    """Write our leaf into `home/<name>` and return what writes it anew."""
    authority = Authority.open(settings.home / "ca")

    def renew() -> None:
        leaf = authority.control_leaf("control")
        write_leaf(settings.home / name, leaf, authority.control_ca, authority.hosts_ca)

    renew()
    return renew


def relay_renewal(settings: ControlSettings, certificate_dir: Path, url: str) -> Callable[[], None]:
    """Return what renews the relay's certificate; it takes seconds if the relay is away, and says so."""
    authority = Authority.open(settings.home / "ca")

    def renew() -> None:
        try:
            with closing(RelayClient(url, certificate_dir)) as relay:
                relay.renew(authority.relay_certificate(relay.certificate_request()))
        except SpotError as error:
            log.warning("relay_certificate_not_renewed", because=str(error))
        else:
            log.info("relay_certificate_renewed")

    return renew


def write_relay_identity(settings: ControlSettings, relay_home: Path) -> None:
    """Write the relay's first certificate, its key and whom it trusts; from then on it renews what it has."""
    authority = Authority.open(settings.home / "ca")
    write_leaf(relay_home, authority.control_leaf(RELAY), authority.control_ca, authority.hosts_ca)
