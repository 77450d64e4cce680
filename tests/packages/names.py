"""A name server for the guest, so that the job finds GitHub by its name, as it would: `answer` is the protocol."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Final

from tests.integration.wires import Place

PORT: Final = 53
JOIN_LIMIT_S: Final = 30.0
QUERY_MAX: Final = 512
# RFC 1035, 4.1: identity, flags, and how many of questions, answers, authorities and additions there are.
HEAD: Final = struct.Struct("!6H")
KIND: Final = struct.Struct("!2H")
AN_ADDRESS: Final = (1, 1)
ANSWERED, NO_SUCH_NAME = 0x8180, 0x8183
NAME_OF_QUESTION: Final = 0xC00C


def answer(query: bytes, name: str, address: str) -> bytes:
    """Return the answer to a query: this one name has this one IPv4 address, and no other name is known."""
    identity, *_ = HEAD.unpack_from(query)
    end = query.index(b"\0", HEAD.size) + 1
    asked, question = query[HEAD.size : end], query[HEAD.size : end + KIND.size]
    if asked.lower() != wired(name):
        return HEAD.pack(identity, NO_SUCH_NAME, 1, 0, 0, 0) + question
    if KIND.unpack(question[-KIND.size :]) != AN_ADDRESS:
        return HEAD.pack(identity, ANSWERED, 1, 0, 0, 0) + question
    record = struct.pack("!HHHIH", NAME_OF_QUESTION, *AN_ADDRESS, 60, 4) + ipaddress.IPv4Address(address).packed
    return HEAD.pack(identity, ANSWERED, 1, 1, 0, 0) + question + record


def wired(name: str) -> bytes:
    """Return a name as it goes over the wire."""
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


@contextlib.contextmanager
def name_server(place: Place, address: str, name: str) -> Iterator[list[bytes]]:
    """Answer at an address of a place, with that address for that name; yields the queries."""
    queries: list[bytes] = []
    wire = place.call(socket.socket, socket.AF_INET, socket.SOCK_DGRAM)
    wire.bind((address, PORT))

    def serve() -> None:
        while True:
            query, caller = wire.recvfrom(QUERY_MAX)
            if not query:
                return
            queries.append(query)
            wire.sendto(answer(query, name, address), caller)

    serving = threading.Thread(target=serve, daemon=True)
    serving.start()
    try:
        yield queries
    finally:
        place.call(_say_goodbye, address)
        serving.join(JOIN_LIMIT_S)
        wire.close()


def _say_goodbye(address: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as caller:
        caller.sendto(b"", (address, PORT))
