"""Whether a delivery is really GitHub's."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence


def is_signed(body: bytes, header: str | None, secrets: Sequence[bytes]) -> bool:
    """Say whether `X-Hub-Signature-256` is the HMAC-SHA256 of the raw body with one of the secrets.

    Takes the same time for every wrong header, and for each of the secrets: all are compared, whichever fits.
    """
    if header is None:
        return False
    given = header.encode()
    fits = [hmac.compare_digest(signature(body, secret), given) for secret in secrets]
    return any(fits)


def signature(body: bytes, secret: bytes) -> bytes:
    """Return the header that GitHub sends with this body."""
    return b"sha256=" + hmac.digest(secret, body, hashlib.sha256).hex().encode()
