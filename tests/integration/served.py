"""An application behind the real listener, in a thread of this process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from starlette.applications import Starlette

from workers.listener import Identity, open_port, serve

LIMIT_S = 20.0


@contextmanager
def served(app: Starlette, directory: Path) -> Iterator[int]:
    """Serve with the identity in this directory; yields the port."""
    listening = open_port("127.0.0.1", 0)
    port: int = listening.getsockname()[1]
    identity = Identity(directory / "certificate.pem", directory / "key.pem", directory / "control-ca.pem")
    loop = asyncio.new_event_loop()
    task = loop.create_task(serve(app, listening, identity))

    def run() -> None:
        try:
            loop.run_until_complete(task)
        except asyncio.CancelledError:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield port
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(LIMIT_S)
        assert not thread.is_alive(), "the server ends when it is told to"
        loop.close()
        listening.close()
