"""Hears what a cloud announces, for as long as a worker process lives, in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Final, Protocol

import structlog

from workers.app import BackgroundHints, sending_to
from workers.bootstrap.rented import AWS
from workers.clock import SystemClock
from workers.domain.errors import SpotError, TryLater
from workers.domain.notice import Announcement
from workers.providers.aws.events import EventQueue, Told
from workers.reconcilers.notices import Notices
from workers.settings import ControlSettings
from workers.store.repository import open_store

# A queue that does not answer is not asked all the time; the hosts' own metadata tells the same meanwhile.
PAUSE_S: Final = 5.0

log: Final = structlog.get_logger(__name__)


class Queue(Protocol):
    """What is listened to."""

    def received(self) -> Iterable[Told]:
        """Return what has come, waiting a while for the first. Raises `SpotError`."""

    def done(self, told: Told) -> None:
        """Let this one not come again."""


class Listening:
    """Takes one message after the other to whoever writes it down."""

    def __init__(self, queue: Queue, hear: Callable[[Announcement], object], pause_s: float = PAUSE_S) -> None:
        self._queue, self._hear, self._pause_s = queue, hear, pause_s
        self._stopped = threading.Event()

    def run(self) -> None:
        """Listen until `stop`; what goes wrong is logged, and heard again."""
        while not self._stopped.is_set():
            try:
                self.once()
            except SpotError as error:
                log.warning("events_not_heard", because=str(error))
                self._stopped.wait(self._pause_s)
            except Exception:
                log.exception("events_not_heard")
                self._stopped.wait(self._pause_s)

    def once(self) -> None:
        """Hear what has come; a message that could not be written down stays in the queue."""
        for told in self._queue.received():
            try:
                if told.announcement is not None:
                    self._hear(told.announcement)
            except TryLater as error:
                log.info("later", kind="event", why=str(error))
                continue
            self._queue.done(told)

    def stop(self) -> None:
        """End `run` soon."""
        self._stopped.set()


def open_listening(settings: ControlSettings) -> Listening | None:
    """Return what hears the queue of the settings, None if they name none."""
    aws = settings.aws
    if aws.events_queue is None or aws.region is None:
        return None
    clock = SystemClock()
    notices = Notices(open_store(settings.database, clock), BackgroundHints(sending_to(settings.redis_url)), clock)
    queue = EventQueue.open(aws.events_queue, aws.region, aws.endpoint)
    return Listening(queue, lambda told: notices.hear(told, AWS))
