"""Which clouds hosts come from: those that the settings name. Loads none of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from workers.domain.errors import Unfit
from workers.domain.overlay import Overlay
from workers.planning.paid_time import BY_THE_HOUR, BY_THE_SECOND, Billing
from workers.secret_files import secret_text
from workers.settings import AwsSettings, ControlSettings

LOCAL: Final = "local"
AWS: Final = "aws"
HETZNER: Final = "hetzner"


def cloud_names(settings: ControlSettings) -> tuple[str, ...]:
    """Return the names of the clouds that hosts come from. Raises `Unfit`, naming the settings that are missing."""
    found = tuple(_named(settings))
    if not found:
        raise Unfit(
            "no cloud is configured; set SPOT_RUNNER_MARKET_URL to a spot market, or SPOT_RUNNER_AWS_REGION or "
            "SPOT_RUNNER_HETZNER_TOKEN_FILE and what docs/clouds.md says"
        )
    if AWS in found:
        _check(settings.aws)
    if HETZNER in found:
        _check_hetzner(settings)
    return found


def billing(cloud: str) -> Billing:
    """Return how this cloud counts what its machines cost."""
    return BY_THE_HOUR if cloud == HETZNER else BY_THE_SECOND


def usd_rate(settings: ControlSettings) -> float | None:
    """Return how many US dollars the settings' currency is worth, None if nobody says."""
    return 1.0 if settings.currency == "USD" else settings.usd_rate


def hetzner_token(settings: ControlSettings) -> str:
    """Return the token of the project. Raises `Unfit`."""
    path = settings.hetzner.token_file
    remedy = "put the token of a project there"
    token = secret_text(path, "SPOT_RUNNER_HETZNER_TOKEN_FILE:", remedy).strip() if path is not None else ""
    if not token.isascii() or not token.isprintable() or len(token.split()) != 1:
        raise Unfit(f"SPOT_RUNNER_HETZNER_TOKEN_FILE: {path} does not hold one word; {remedy}")
    return token


def _named(settings: ControlSettings) -> Iterator[str]:
    if settings.market_url is not None:
        yield LOCAL
    if settings.aws.region is not None:
        yield AWS
    if settings.hetzner.token_file is not None:
        yield HETZNER


def _check_hetzner(settings: ControlSettings) -> None:
    """Its servers have nothing but public addresses, so what hosts say to each other must be sealed."""
    if settings.overlay is Overlay.PLAIN:
        raise Unfit("Hetzner: hosts there meet over the internet; set SPOT_RUNNER_OVERLAY=wireguard (docs/clouds.md)")
    hetzner_token(settings)


def _check(aws: AwsSettings) -> None:
    needed = {
        "SUBNETS": aws.subnets,
        "INSTANCE_TYPES": aws.instance_types,
        "KVM_IMAGE, or _PVM_IMAGE": aws.kvm_image or aws.pvm_image,
        "CONTROL_SOURCE, or _SECURITY_GROUP": aws.control_source or aws.security_group,
    }
    missing = [name for name, value in needed.items() if not value]
    if missing:
        raise Unfit(f"AWS {aws.region}: set SPOT_RUNNER_AWS_{missing[0]} too (docs/clouds.md)")
