"""`spot-runner image build --cloud aws`: an instance there makes itself the image."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from images import versions as inputs
from images.builder import FAILED, Program, builder_user_data, with_voucher
from images.order import check_room, checked_order, read_digests, read_settings
from workers.bootstrap.unwinding import unwound_on_sigterm
from workers.bootstrap.vouching import find_published
from workers.clock import SystemClock
from workers.domain.errors import BadInput
from workers.providers.aws.account import Account
from workers.providers.aws.builder import INSTALL_LIMIT, Builder, Order
from workers.providers.aws.requests import MIB_PER_GIB, Rental
from workers.settings import ControlSettings


@dataclass(frozen=True)
class AwsWish:
    """What the command was told."""

    kernel: str
    source: str
    disk_mib: int
    base_image: str | None
    repository: str | None
    revision: str | None
    settings: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()


def run_build_aws(control: ControlSettings, wish: AwsWish) -> None:
    """Make the image, or find it, and say which it is. Raises `BadInput` or the port's errors."""
    settings = control.aws
    if settings.region is None or not settings.subnets or not settings.instance_types:
        raise BadInput(
            "--cloud aws: set SPOT_RUNNER_AWS_REGION, _SUBNETS and _INSTANCE_TYPES; the first of each is used"
        )
    rental = Rental(settings.region, "images", settings.subnets[:1], settings.instance_types[:1], tags=settings.tags)
    account = Account.open(rental, settings.endpoint)
    order = order_of(wish, rental, is_public=lambda: account.subnets[0].is_public)
    packages = find_published(control, read_digests("aws", wish.packages))
    check_room(packages.size_mib, wish.disk_mib, "--disk-mib", "write more")
    with unwound_on_sigterm(), packages.vouched(order.name, INSTALL_LIMIT) as url:
        told = order.user_data if url is None else with_voucher(order.user_data, url)
        made = Builder(account, SystemClock(), time.sleep).make(replace(order, user_data=told))
    sys.stdout.write(
        f"{made}: {order.name} in {settings.region}; set SPOT_RUNNER_AWS_{wish.kernel.upper()}_IMAGE to it\n"
    )


def order_of(wish: AwsWish, rental: Rental, *, is_public: Callable[[], bool]) -> Order:
    """Return what is ordered. Raises `BadInput` before anybody is asked."""
    image = checked_order(inputs.load(), "aws", wish.kernel, wish.source, wish.disk_mib)
    image = replace(image, settings=read_settings(wish.settings), fetched=read_digests("aws", wish.packages))
    if not wish.base_image or not wish.repository or not wish.revision:
        raise BadInput(
            "--cloud aws: name --base-image (Debian's own for this region), and the --repository and --revision of "
            "spot-runner that goes into the image"
        )
    told = builder_user_data(image, Program(wish.repository, wish.revision))
    key = hashlib.sha256(f"{wish.base_image}\n{wish.disk_mib}\n{told}".encode()).hexdigest()[:12]
    return Order(
        name=f"spot-runner-{wish.source}-{key}",
        origin=wish.base_image,
        instance_type=rental.instance_types[0],
        subnet=rental.subnets[0],
        is_public=is_public(),
        user_data=told,
        failed=FAILED,
        disk_gib=-(-wish.disk_mib // MIB_PER_GIB),
        tags=rental.tags,
    )
