"""A guest at the other end of the host's socket, as a test plays it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from guest_agent import wire

Guest = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def next_request(reader: asyncio.StreamReader) -> wire.Request:
    frames = wire.Frames()
    while chunk := await reader.read(65536):
        for line in frames.feed(chunk):
            message = wire.decode(line)
            assert isinstance(message, wire.Request)
            return message
    raise EOFError


def answering(make: Callable[[wire.Request], bytes]) -> Guest:
    async def guest(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(make(await next_request(reader)))

    return guest


def with_value(value: object) -> Guest:
    return answering(lambda request: wire.encode(wire.Response(request.call, value)))
