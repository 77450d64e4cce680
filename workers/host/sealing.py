"""Parts of a parked guest, sealed so that only its own key opens them, each in its own place.

    contents ─▶ zstd ─▶ AES-256-GCM(key of this park, park · name) ─▶ nonce ‖ sealed ─▶ SHA-256 into the manifest

The park and the part's name are authenticated beside the contents, so a part of another park, or another part of this
one, is refused as what it is. The nonce is drawn: a part that is sealed twice never uses one twice.
"""

from __future__ import annotations

import hashlib
import os
from typing import Final

import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from workers.domain.errors import BadInput
from workers.domain.names import MigrationId
from workers.domain.park import PART_BYTES, VERSION, Part

NONCE_BYTES: Final = 12
# The fastest: the line is faster than a better one would be.
LEVEL: Final = 1


class Seal:
    """Seals and opens the parts of one park; safe for threads. Raises `BadInput` for a key that is none."""

    def __init__(self, park_id: MigrationId, key: str) -> None:
        try:
            self._cipher = AESGCM(bytes.fromhex(key))
        except ValueError as error:
            raise BadInput(f"{park_id}: key: it is not 64 hex digits; order again with the park's key") from error
        self._park_id = park_id

    def close_part(self, name: str, contents: bytes) -> tuple[Part, bytes]:
        """Return a part for the manifest, and what lies in the store."""
        nonce = os.urandom(NONCE_BYTES)
        small = zstandard.ZstdCompressor(level=LEVEL).compress(contents)
        sealed = nonce + self._cipher.encrypt(nonce, small, self._place(name))
        return Part(len(sealed), hashlib.sha256(sealed).hexdigest()), sealed

    def open_part(self, name: str, part: Part, sealed: bytes) -> bytes:
        """Return the contents. Raises `BadInput`, with one sentence, if this is anything but that very part."""
        if len(sealed) != part.sealed_bytes:
            raise BadInput(
                f"{self._park_id}: {name}: {len(sealed)} bytes instead of {part.sealed_bytes}; it was cut or replaced"
            )
        if hashlib.sha256(sealed).hexdigest() != part.sha256:
            raise BadInput(f"{self._park_id}: {name}: its hash is not the manifest's; it was changed in the store")
        try:
            small = self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], self._place(name))
            return _unpacked(small)
        except (InvalidTag, ValueError) as error:
            raise BadInput(
                f"{self._park_id}: {name}: this park's key does not open it in this place; it is another part"
            ) from error
        except zstandard.ZstdError as error:
            raise BadInput(f"{self._park_id}: {name}: it holds more than a part may, or nothing of ours") from error

    def _place(self, name: str) -> bytes:
        return f"spot-runner park {VERSION} {self._park_id} {name}".encode()


def _unpacked(small: bytes) -> bytes:
    """Return at most a part's contents; a frame that says its own size is unpacked whatever limit is given."""
    if zstandard.frame_content_size(small) > PART_BYTES:
        raise zstandard.ZstdError("the frame is too large")
    return zstandard.ZstdDecompressor().decompress(small, max_output_size=PART_BYTES)
