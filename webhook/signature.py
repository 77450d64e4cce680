"""Whether a delivery is really GitHub's."""

from __future__ import annotations

import hashlib
import hmac


def is_signed(body: bytes, header: str | None, secret: bytes) -> bool:
    """Say whether `X-Hub-Signature-256` is the HMAC-SHA256 of the raw body; takes the same time for every wrong one."""
    if header is None:
        return False
    expected = "sha256=" + hmac.digest(secret, body, hashlib.sha256).hex()
    return hmac.compare_digest(expected.encode(), header.encode())
