from __future__ import annotations

import hashlib
import hmac

from hypothesis import given
from hypothesis import strategies as st

from webhook.signature import is_signed


def test_github_s_own_example_is_signed() -> None:
    """The example of GitHub's page on validating deliveries."""
    header = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    assert is_signed(b"Hello, World!", header, [b"It's a Secret to Everybody"])


@given(body=st.binary(), secret=st.binary(min_size=1))
def test_what_was_signed_with_the_secret_is_signed(body: bytes, secret: bytes) -> None:
    assert is_signed(body, "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest(), [secret])


@given(body=st.binary(), secrets=st.lists(st.binary(min_size=1), min_size=1, max_size=2), other=st.binary(min_size=1))
def test_either_of_two_secrets_signs_and_no_third_one(body: bytes, secrets: list[bytes], other: bytes) -> None:
    for secret in secrets:
        assert is_signed(body, "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest(), secrets)
    foreign = "sha256=" + hmac.new(other, body, hashlib.sha256).hexdigest()
    assert is_signed(body, foreign, secrets) == any(_same_key(other, secret) for secret in secrets)
    assert not is_signed(body, foreign, [])


def _same_key(one: bytes, other: bytes) -> bool:
    """HMAC pads short keys with zeros, so these are one key."""
    return one.ljust(64, b"\0") == other.ljust(64, b"\0")


@given(body=st.binary(min_size=1), place=st.integers(min_value=0), bit=st.integers(0, 7))
def test_one_changed_bit_breaks_the_signature(body: bytes, place: int, bit: int) -> None:
    header = "sha256=" + hmac.new(b"secret", body, hashlib.sha256).hexdigest()
    changed = bytearray(body)
    changed[place % len(body)] ^= 1 << bit
    assert not is_signed(bytes(changed), header, [b"secret"])


@given(header=st.none() | st.text())
def test_any_other_header_is_refused_and_raises_nothing(header: str | None) -> None:
    assert not is_signed(b"body", header, [b"secret"])


def test_the_older_kind_of_signature_is_refused() -> None:
    assert not is_signed(b"body", "sha1=" + hmac.new(b"secret", b"body", hashlib.sha1).hexdigest(), [b"secret"])
