"""An event loop of its own in a namespace of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from pyroute2 import netns

T = TypeVar("T")
LIMIT_S = 90.0


class Inside:
    """An event loop in a thread in a namespace, as a daemon's is in its process."""

    def __init__(self, namespace: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, args=(namespace,), name=f"inside {namespace}")
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T], limit_s: float = LIMIT_S) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(limit_s)

    def end(self) -> None:
        self.run(self.loop.shutdown_default_executor())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(LIMIT_S)
        self.loop.close()

    def _run(self, namespace: str) -> None:
        netns.setns(namespace)
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
