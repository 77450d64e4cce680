"""An image at Hetzner: a server makes itself what hosts are and switches off; its snapshot is the image, and it goes.

    snapshot of this key? ──yes─────────────────────────────────────────────────────────┐
          └─no─▶ older builder goes ─▶ create server ─▶ off ─▶ create_image ─▶ available ─▶ no builder is left

What there is says where to go on: the snapshot is found by its labels, the builder by its name, which a project gives
once. So a builder is never left behind by a call that ends, and after a kill by no later call: its own image's is
deleted at once, another's when it is older than any build may be. A server that is off costs what one that runs does.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeVar

from hcloud.images import BoundImage, Image
from hcloud.locations import Location
from hcloud.server_types import ServerType
from hcloud.servers import BoundServer

from workers.domain.errors import Refused, SpotError, Unreachable
from workers.ports import Clock
from workers.providers.hetzner.account import Account

T = TypeVar("T")

IMAGE_LABEL: Final = "spot-runner/image"
KEY_LABEL: Final = "spot-runner/image-key"
BUILDER_LABEL: Final = "spot-runner/image-builder"
INSTALL_LIMIT: Final = timedelta(minutes=45)
SNAPSHOT_LIMIT: Final = timedelta(minutes=30)
DELETE_LIMIT: Final = timedelta(minutes=3)
PAUSE_S: Final = 5.0
OFF: Final = "off"


@dataclass(frozen=True)
class Order:
    """What is to be there."""

    name: str
    """The image's description; its builder is named after it."""
    key: str
    """Follows from all that goes into it."""
    kind: str
    """What `SPOT_RUNNER_HETZNER_IMAGE` looks for: `pvm`."""
    origin: str
    """Hetzner's own image that the builder boots."""
    server_type: str
    location: str
    user_data: str

    @property
    def builder(self) -> str:
        """The builder's name."""
        return f"{self.name}-builder"


class Builder:
    """Makes one image at a time."""

    def __init__(self, account: Account, clock: Clock, pause: Callable[[float], None]) -> None:
        """`pause` lets so many seconds pass."""
        self._account, self._clock, self._pause = account, clock, pause
        self._client = account.client

    def make(self, order: Order) -> int:
        """Return the snapshot's number when it can be booted; find it if it is there. Raises the port's errors.

        However it ends, no builder of this image is left; the next call deletes one that could not be deleted now.
        """
        try:
            self._end_forgotten()
            if self._image(order) is None:
                self._end_builder(order)
                self._create(order)
                server = self._until(lambda: self._off(order), INSTALL_LIMIT, "the builder has done its work")
                self._snapshot(order, server)
            made = self._until(
                lambda: self._available(order), SNAPSHOT_LIMIT, f"the snapshot {order.name} is available"
            )
        except BaseException:
            with suppress(SpotError):  # why it failed is said, and the next call deletes what is left
                self._end_builder(order)
            raise
        self._end_builder(order)
        return made

    # ------------------------------------------------------------ each step

    def _create(self, order: Order) -> None:
        self._account.ask(
            f"create server ({order.server_type} in {order.location})",
            lambda: self._client.servers.create(
                name=order.builder,
                server_type=ServerType(name=order.server_type),
                image=Image(name=order.origin),
                location=Location(name=order.location),
                user_data=order.user_data,
                labels={BUILDER_LABEL: order.key},
            ),
        )

    def _off(self, order: Order) -> BoundServer | None:
        """Return the builder when it is off. Raises `Refused` if somebody has deleted it."""
        server = self._server(order)
        if server is None:
            raise Refused(f"Hetzner: the builder of {order.name} is gone before its work was done; build again")
        return server if server.status == OFF else None

    def _snapshot(self, order: Order, server: BoundServer) -> None:
        labels = {IMAGE_LABEL: order.kind, KEY_LABEL: order.key}
        self._account.ask(
            "create image",
            lambda: self._client.servers.create_image(server, order.name, type="snapshot", labels=labels),
        )

    def _available(self, order: Order) -> int | None:
        image = self._image(order)
        return image.id if image is not None and image.status == "available" else None

    def _end_builder(self, order: Order) -> None:
        """Delete it and wait until it is gone: it is locked as long as its snapshot is made."""

        def is_gone() -> bool | None:
            server = self._server(order)
            if server is None:
                return True
            if (server.labels or {}).get(BUILDER_LABEL) is None:
                raise Refused(f"Hetzner: the project has a server {order.builder} that is no builder; rename it")
            if server.status != "deleting":
                with suppress(SpotError):
                    self._account.ask("delete server", server.delete, is_urgent=True)
            return None

        self._until(is_gone, DELETE_LIMIT, f"the builder of {order.name} is gone")

    def _end_forgotten(self) -> None:
        """Delete builders of any image for which nobody can be waiting any more."""
        since = self._clock.now() - INSTALL_LIMIT - SNAPSHOT_LIMIT
        servers = self._client.servers
        for one in self._account.ask("list servers", lambda: servers.get_all(label_selector=BUILDER_LABEL)):
            if one.created is not None and one.created < since and one.status != "deleting":
                self._account.ask("delete server", one.delete, is_urgent=True)

    # ------------------------------------------------------------ found

    def _server(self, order: Order) -> BoundServer | None:
        return self._account.ask("find server", lambda: self._client.servers.get_by_name(order.builder))

    def _image(self, order: Order) -> BoundImage | None:
        found = self._account.ask(
            "list images",
            lambda: self._client.images.get_all(label_selector=f"{KEY_LABEL}={order.key}", type=["snapshot"]),
        )
        return found[0] if found else None

    def _until(self, look: Callable[[], T | None], limit: timedelta, what: str) -> T:
        end = self._clock.now() + limit
        while (found := look()) is None:
            if self._clock.now() >= end:
                raise Unreachable(f"Hetzner: it was not seen within {limit} that {what}; build again")
            self._pause(PAUSE_S)
        return found
