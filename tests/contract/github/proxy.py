"""A wire with faults between a runner and its broker: it cuts connections in the middle and holds bytes back.

runner ──▶ proxy ──▶ broker          requests pass upwards, answers downwards
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

CHUNK: Final = 4096


class Wire:
    """One proxy in front of one address."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._server.getsockname()[1]}"
        self.cuts_upwards: list[bytes] = []
        """Cut, once each, the connection on which this is said, in its middle."""
        self.cuts_downwards: list[bytes] = []
        """Cut, once each, the connection on which the answer to a request with this in it comes, before it passes."""
        self.cuts = 0
        self._open = threading.Event()
        self._open.set()
        self._ending = False
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._ending = True
        self._open.set()
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Hold back everything, as a paused machine does."""
        self._open.clear()
        try:
            yield
        finally:
            self._open.set()

    def _accept(self) -> None:
        while not self._ending:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(near,), daemon=True).start()

    def _carry(self, near: socket.socket) -> None:
        far = socket.create_connection(self._target)
        doomed = threading.Event()
        down = threading.Thread(target=self._pass, args=(far, near, doomed), daemon=True)
        down.start()
        self._pass_upwards(near, far, doomed)
        down.join()
        for end in (near, far):
            end.close()

    def _pass_upwards(self, near: socket.socket, far: socket.socket, doomed: threading.Event) -> None:
        said = b""
        with suppress(OSError):
            while chunk := near.recv(CHUNK):
                self._open.wait()
                said = (said + chunk)[-4 * CHUNK :]
                if self._is_struck(self.cuts_downwards, said):
                    doomed.set()
                    said = b""
                if self._is_struck(self.cuts_upwards, said):
                    far.sendall(chunk[: len(chunk) // 2])
                    reset(near)
                    reset(far)
                    return
                far.sendall(chunk)
        with suppress(OSError):
            far.shutdown(socket.SHUT_WR)

    def _pass(self, far: socket.socket, near: socket.socket, doomed: threading.Event) -> None:
        with suppress(OSError):
            while chunk := far.recv(CHUNK):
                self._open.wait()
                if doomed.is_set():
                    reset(near)
                    reset(far)
                    return
                near.sendall(chunk)
        with suppress(OSError):
            near.shutdown(socket.SHUT_WR)

    def _is_struck(self, words: list[bytes], said: bytes) -> bool:
        with self._lock:
            for word in words:
                if word in said:
                    words.remove(word)
                    self.cuts += 1
                    return True
        return False


def reset(end: socket.socket) -> None:
    """End a connection with a reset, not with a farewell."""
    with suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.shutdown(socket.SHUT_RDWR)


@contextmanager
def faulty_wire(target: str) -> Iterator[Wire]:
    """Run a proxy in front of `host:port`."""
    host, port = target.rsplit(":", maxsplit=1)
    wire = Wire((host, int(port)))
    try:
        yield wire
    finally:
        wire.close()
