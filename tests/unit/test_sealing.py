"""What lies in the store is opened by its own key in its own place, or refused with one sentence."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import replace

import pytest
import zstandard
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.domain.errors import BadInput
from workers.domain.names import MigrationId
from workers.domain.park import PART_BYTES, SEALED_LIMIT_BYTES, Part
from workers.host.sealing import Seal

PARK = MigrationId("spot-move-1")
KEY = secrets.token_hex(32)
NAME = "memory-000000"


def seal(park: str = PARK, key: str = KEY) -> Seal:
    return Seal(MigrationId(park), key)


@settings(deadline=None, max_examples=25)
@given(st.binary(max_size=4096))
def test_what_was_sealed_is_opened(contents: bytes) -> None:
    part, sealed = seal().close_part(NAME, contents)
    assert seal().open_part(NAME, part, sealed) == contents
    assert contents == b"" or len(contents) < 8 or contents not in sealed


def test_a_whole_part_of_what_cannot_be_made_smaller_stays_within_the_limit() -> None:
    contents = secrets.token_bytes(PART_BYTES)
    part, sealed = seal().close_part(NAME, contents)
    assert part.sealed_bytes == len(sealed) <= SEALED_LIMIT_BYTES
    assert seal().open_part(NAME, part, sealed) == contents


def test_sealing_the_same_twice_never_gives_the_same() -> None:
    """A nonce that is used twice under one key would give both away."""
    sealed = {seal().close_part(NAME, b"the same")[1] for _ in range(64)}
    assert len({one[:12] for one in sealed}) == 64


@pytest.mark.parametrize("place", [0, 11, 12, 40, -1])
def test_a_changed_byte_is_refused(place: int) -> None:
    part, sealed = seal().close_part(NAME, b"contents" * 100)
    changed = bytearray(sealed)
    changed[place] ^= 1
    with pytest.raises(BadInput, match=r"^spot-move-1: memory-000000: its hash is not the manifest's; it was changed"):
        seal().open_part(NAME, part, bytes(changed))


def test_a_changed_byte_is_refused_even_if_the_manifest_was_changed_with_it() -> None:
    _, sealed = seal().close_part(NAME, b"contents" * 100)
    changed = sealed[:-1] + bytes([sealed[-1] ^ 1])
    with pytest.raises(BadInput, match="does not open it in this place"):
        seal().open_part(NAME, part_of(changed), changed)


def test_a_part_that_was_cut_is_refused() -> None:
    part, sealed = seal().close_part(NAME, b"contents" * 100)
    with pytest.raises(BadInput, match=f"memory-000000: {len(sealed) - 1} bytes instead of {len(sealed)}; it was cut"):
        seal().open_part(NAME, part, sealed[:-1])
    for length in (0, 5, 12, 27):
        with pytest.raises(BadInput, match="does not open it in this place"):
            seal().open_part(NAME, part_of(sealed[:length]), sealed[:length])


def test_parts_do_not_change_places() -> None:
    part, sealed = seal().close_part("memory-000001", b"the second")
    for elsewhere in (NAME, "disk-000001"):
        with pytest.raises(BadInput, match=f"{elsewhere}: this park's key does not open it in this place"):
            seal().open_part(elsewhere, part, sealed)


def test_a_part_of_another_park_is_refused() -> None:
    part, sealed = seal().close_part(NAME, b"ours")
    for other in (seal(park="spot-move-2"), seal(key=secrets.token_hex(32))):
        with pytest.raises(BadInput, match="it is another part"):
            other.open_part(NAME, part, sealed)


def test_a_part_that_would_fill_the_memory_is_refused() -> None:
    """Whoever has the key could still seal some bytes that become gigabytes."""
    cipher, nonce = AESGCM(bytes.fromhex(KEY)), bytes(12)
    small = zstandard.ZstdCompressor().compress(bytes(PART_BYTES + 1))
    sealed = nonce + cipher.encrypt(nonce, small, f"spot-runner park 1 {PARK} {NAME}".encode())
    with pytest.raises(BadInput, match="more than a part may"):
        seal().open_part(NAME, part_of(sealed), sealed)


@pytest.mark.parametrize("key", ["", "00", "not hex", "5a" * 31, "5a" * 33])
def test_a_key_that_is_none_is_refused(key: str) -> None:
    with pytest.raises(BadInput, match="key: it is not 64 hex digits"):
        seal(key=key)


def part_of(sealed: bytes) -> Part:
    part, _ = seal().close_part(NAME, b"")
    return replace(part, sealed_bytes=len(sealed), sha256=hashlib.sha256(sealed).hexdigest())
