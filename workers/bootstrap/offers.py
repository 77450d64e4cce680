"""What there is to be had and at what price, as the administrator has written it down (JSON, docs/clouds.md).

The file is read again when it is changed; one that is not right changes nothing, and the log says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from workers.domain.architecture import Architecture, unbuilt
from workers.domain.errors import BadInput
from workers.domain.host_class import Acceleration
from workers.domain.offer import Likeness, Offer
from workers.domain.runner import Shape
from workers.log import LateLogger

log: Final = LateLogger()

Word = Annotated[str, Field(min_length=1, max_length=100)]
Size = Annotated[int, Field(ge=1, lt=1 << 31)]
Price = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Told(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    cloud: Literal["local", "aws", "hetzner"]
    region: Word
    zone: Word
    instance_type: Word
    market: Literal["spot", "on-demand"]
    usd_per_hour: Price
    vcpus: Size
    memory_mib: Size
    disk_mib: Size
    architecture: Architecture = Architecture.X86_64
    acceleration: Acceleration | None = None
    vendor: Word | None = None
    interruptions_per_hour: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    network_mbit: Size | None = None


_ALL: Final = TypeAdapter(list[_Told])


class OffersFile:
    """What an administrator has written down."""

    def __init__(self, path: Path) -> None:
        """Raises `BadInput` if it is not right."""
        self._path = path
        self._offers, self._seen = read_offers(path), _signature(path)

    def offers(self) -> Sequence[Offer]:
        """Return what the file says, or said when it was right last."""
        signature = _signature(self._path)
        if signature != self._seen:
            self._seen = signature
            try:
                self._offers = read_offers(self._path)
            except BadInput as error:
                log.error("offers_refused", because=str(error), then="the former ones hold")  # noqa: TRY400 the sentence says it all
        return self._offers


def read_offers(path: Path) -> Sequence[Offer]:
    """Return what a file of offers says. Raises `BadInput` naming the offer, the field and the remedy."""
    try:
        told = _ALL.validate_json(path.read_bytes())
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}; name a file in SPOT_RUNNER_OFFERS_FILE, or none") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(step) for step in first["loc"])
        raise BadInput(f"{path}: {place or 'the file'}: {first['msg']}; see docs/clouds.md") from error
    for number, one in enumerate(told):
        if (refused := unbuilt(one.architecture)) is not None:
            raise BadInput(f"{path}: {number} ({one.instance_type}).architecture: {refused}, or remove the offer")
    return tuple(_offer(one) for one in told)


def _offer(told: _Told) -> Offer:
    return Offer(
        cloud=told.cloud,
        region=told.region,
        zone=told.zone,
        instance_type=told.instance_type,
        room=Shape(told.vcpus, told.memory_mib, told.disk_mib),
        usd_per_hour=told.usd_per_hour,
        is_spot=told.market == "spot",
        likeness=Likeness(told.architecture, told.acceleration, told.vendor),
        interruptions_per_hour=told.interruptions_per_hour,
        network_mbit=told.network_mbit,
    )


def _signature(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_size, found.st_ino
