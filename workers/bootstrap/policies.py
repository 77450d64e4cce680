"""The policy of now: the file is read again when it is changed, and one that is not right changes nothing.

changed ─▶ right? ─▶ it holds, and is kept as the last good one     (so that a restart finds it)
└─ no ─▶ the former one holds; the log says so, and the timeline once
"""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from workers.bootstrap.pools import open_policy, policy_of, read_file
from workers.domain.errors import BadInput
from workers.domain.events import Event, Happening
from workers.domain.pools import Policy
from workers.log import LateLogger
from workers.ports import Clock, Store
from workers.settings import ControlSettings

log: Final = LateLogger()

LAST_GOOD: Final = "pools-last-good.toml"
TOLD: Final = "pools-told"
# Every decision asks for the policy; the file is looked at this often at most.
LOOK_INTERVAL_S: Final = 1.0


class Policies:
    """Gives the policy of now to whoever calls it. Safe for threads."""

    def __init__(self, settings: ControlSettings, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Raises `BadInput` if the file is not right and no former one is known."""
        self._settings, self._monotonic = settings, monotonic
        self._file, self._lock = settings.pools_file, threading.Lock()
        self._seen: tuple[int, ...] | None = None
        self._digest, self._looked_at = "", float("-inf")
        self.problem: str | None = None
        """What is wrong with the file as it is now; then the former policy holds."""
        self._policy = open_policy(settings) if self._file is None else self._first(self._file)

    def __call__(self) -> Policy:
        """Return what the administrator allows now."""
        if self._file is not None:
            with self._lock:
                if self._monotonic() - self._looked_at >= LOOK_INTERVAL_S:
                    self._looked_at = self._monotonic()
                    self._look(self._file)
        return self._policy

    def report(self, store: Store, clock: Clock) -> None:
        """Tell the timeline of a change, once for each, whoever reads the file besides."""
        self()
        if self._file is None or not self._digest:
            return
        marker = self._settings.home / TOLD
        before = marker.read_text() if marker.exists() else None
        if before == self._digest:
            return
        if self.problem is not None:
            store.record(Event(Happening.POLICY_REFUSED, clock.now(), detail={"because": self.problem}))
        elif before is not None:
            store.record(Event(Happening.POLICY_READ, clock.now(), detail={"pools": len(self._policy.pools)}))
        _put(marker, self._digest.encode())

    def _first(self, file: Path) -> Policy:
        try:
            content = read_file(file)
            policy = policy_of(file, content, self._settings)
        except BadInput as error:
            former = self._settings.home / LAST_GOOD
            if not former.exists():
                raise
            policy = policy_of(former, read_file(former), self._settings)
            self._refuse(str(error), _content(file))
        else:
            self._accept(policy, content)
        self._seen = _signature(file)
        return policy

    def _look(self, file: Path) -> None:
        signature = _signature(file)
        if signature == self._seen:
            return
        self._seen, content = signature, _content(file)
        if _digest(content) == self._digest:
            return
        try:
            policy = policy_of(file, read_file(file), self._settings)
        except BadInput as error:
            self._refuse(str(error), content)
        else:
            log.info("policy_read", file=str(file), pools=len(policy.pools))
            self._accept(policy, content)

    def _accept(self, policy: Policy, content: bytes) -> None:
        self._policy, self.problem, self._digest = policy, None, _digest(content)
        _put(self._settings.home / LAST_GOOD, content)

    def _refuse(self, problem: str, content: bytes) -> None:
        log.error("policy_refused", because=problem, then="the former one holds")
        self.problem, self._digest = problem, _digest(content)


def _signature(file: Path) -> tuple[int, ...]:
    try:
        found = file.stat()
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_size, found.st_ino


def _content(file: Path) -> bytes:
    """Return what stands there; a file that cannot be read is as good as an empty one."""
    try:
        return file.read_bytes()
    except OSError:
        return b""


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _put(file: Path, content: bytes) -> None:
    """Write a small file, whole or not at all; several processes may at once."""
    if _content(file) == content:
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        beside = file.with_name(f"{file.name}.{os.getpid()}-{secrets.token_hex(4)}")
        beside.write_bytes(content)
        beside.replace(file)
    except OSError as error:
        log.warning("policy_not_kept", file=str(file), because=str(error))
