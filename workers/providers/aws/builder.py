"""An image at EC2: an instance makes itself what hosts are and stops; its disk becomes the image, and it goes.

    image of this name? ──yes───────────────────────────────────────────────────────┐
          └─no─▶ older builders go ─▶ RunInstances ─▶ stopped ─▶ CreateImage ─▶ available ─▶ no builder is left

What there is says where to go on: the image is found by its name, builders by their tag. So a builder is never left
behind by a call that ends, and after a kill by no later call: its own image's is ended at once, another's when it is
older than any build may be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, TypeVar

from workers.domain.errors import Refused, SpotError, Unreachable
from workers.ports import Clock
from workers.providers.aws.account import Account

T = TypeVar("T")

BUILDER_TAG: Final = "spot-runner:image-builder"
IMAGE_TAG: Final = "spot-runner:image"
# Installing takes minutes; a snapshot of some gigabytes, too.
INSTALL_LIMIT: Final = timedelta(minutes=45)
IMAGE_LIMIT: Final = timedelta(minutes=45)
PAUSE_S: Final = 10.0
ALIVE: Final = ("pending", "running", "stopping", "stopped")
LAST_WORDS: Final = 400


@dataclass(frozen=True)
class Order:
    """What is to be there."""

    name: str
    """The image's; it follows from all that goes into it."""
    origin: str
    """The distribution's own image that the instance boots."""
    instance_type: str
    subnet: str
    is_public: bool
    user_data: str
    failed: str
    """What the console says if it cannot be done."""
    disk_gib: int = 8
    tags: Mapping[str, str] = field(default_factory=dict)


class Builder:
    """Makes one image at a time."""

    def __init__(self, account: Account, clock: Clock, pause: Callable[[float], None]) -> None:
        """`pause` lets so many seconds pass."""
        self._account, self._clock, self._pause = account, clock, pause

    def make(self, order: Order) -> str:
        """Return the image's id when it can be booted; find it if it is there. Raises the port's errors.

        However it ends, no builder of this image is left; one that could not be ended now is ended by the next call.
        """
        try:
            self._end_forgotten()
            if self._image(order) is None:
                self._end_builders(order)
                self._run(order)
                instance = self._until(lambda: self._stopped(order), INSTALL_LIMIT, "the builder has done its work")
                self._create_image(order, instance)
            made = self._until(lambda: self._available(order), IMAGE_LIMIT, f"the image {order.name} is available")
        except BaseException:
            with suppress(SpotError):  # why it failed is said, and the next call ends what is left
                self._end_builders(order)
            raise
        self._end_builders(order)
        return made

    # ------------------------------------------------------------ each step

    def _run(self, order: Order) -> None:
        tags = {**order.tags, BUILDER_TAG: order.name, "Name": f"{order.name}-builder"}
        disk = {"VolumeSize": order.disk_gib, "VolumeType": "gp3", "Encrypted": True, "DeleteOnTermination": True}
        self._account.ask(
            "run_instances",
            ImageId=order.origin,
            InstanceType=order.instance_type,
            MinCount=1,
            MaxCount=1,
            UserData=order.user_data,
            InstanceInitiatedShutdownBehavior="stop",
            MetadataOptions={"HttpEndpoint": "enabled", "HttpTokens": "required", "HttpPutResponseHopLimit": 1},
            BlockDeviceMappings=[{"DeviceName": self._account.image(order.origin).root_device, "Ebs": disk}],
            NetworkInterfaces=[
                {"DeviceIndex": 0, "SubnetId": order.subnet, "AssociatePublicIpAddress": order.is_public}
            ],
            TagSpecifications=[{"ResourceType": kind, "Tags": _tags(tags)} for kind in ("instance", "volume")],
        )

    def _stopped(self, order: Order) -> str | None:
        """Return the builder's id when it is off. Raises `Refused` with its last words if it will never be."""
        found = self._builders(order)
        if not found:
            raise Refused(f"{self._place}: the builder of {order.name} has ended before its work was done; build again")
        name, state = str(found[0]["InstanceId"]), found[0]["State"]["Name"]
        if state == "stopped":
            return name
        said = str(self._account.ask("get_console_output", InstanceId=name, Latest=True).get("Output", ""))
        _, failed, words = said.partition(order.failed)
        if failed:
            raise Refused(
                f"{self._place}: the builder of {order.name} says: {failed}{words.splitlines()[0][:LAST_WORDS]}"
            )
        return None

    def _create_image(self, order: Order, instance: str) -> None:
        tags = [{"ResourceType": "image", "Tags": _tags({**order.tags, IMAGE_TAG: order.name})}]
        self._account.ask("create_image", InstanceId=instance, Name=order.name, TagSpecifications=tags)

    def _available(self, order: Order) -> str | None:
        image = self._image(order)
        if image is None or image["State"] == "pending":
            return None
        if image["State"] != "available":
            raise Refused(f"{self._place}: the image {order.name} is {image['State']}; deregister it, and build again")
        return str(image["ImageId"])

    # ------------------------------------------------------------ found

    @property
    def _place(self) -> str:
        return f"AWS {self._account.rental.region}"

    def _image(self, order: Order) -> Mapping[str, Any] | None:
        named = [{"Name": "name", "Values": [order.name]}]
        found = self._account.ask("describe_images", Owners=["self"], Filters=named)["Images"]
        return found[0] if found else None

    def _builders(self, order: Order) -> list[dict[str, Any]]:
        return self._alive({"Name": f"tag:{BUILDER_TAG}", "Values": [order.name]})

    def _alive(self, whose: Mapping[str, object]) -> list[dict[str, Any]]:
        filters = [whose, {"Name": "instance-state-name", "Values": list(ALIVE)}]
        pages = self._account.every("describe_instances", "Reservations", Filters=filters)
        return [one for some in pages for one in some["Instances"]]

    def _end_builders(self, order: Order) -> None:
        self._end(self._builders(order))

    def _end_forgotten(self) -> None:
        """End builders of any image for which nobody can be waiting any more."""
        since = self._clock.now() - INSTALL_LIMIT - IMAGE_LIMIT
        found = self._alive({"Name": "tag-key", "Values": [BUILDER_TAG]})
        self._end([one for one in found if one["LaunchTime"] < since])

    def _end(self, instances: Sequence[Mapping[str, Any]]) -> None:
        if found := [one["InstanceId"] for one in instances]:
            self._account.ask("terminate_instances", InstanceIds=found)

    def _until(self, look: Callable[[], T | None], limit: timedelta, what: str) -> T:
        end = self._clock.now() + limit
        while (found := look()) is None:
            if self._clock.now() >= end:
                raise Unreachable(f"{self._place}: it was not seen within {limit} that {what}; build again")
            self._pause(PAUSE_S)
        return found


def _tags(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in sorted(tags.items())]
