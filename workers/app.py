"""Celery: the queues, the worker's settings, and how anybody asks for something to be looked at.

Redis carries hints only. A task's arguments are ids, and everything that a hint would have made happen
happens a little later without it.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from typing import Any, Final

import structlog
from celery import Celery
from kombu.entity import Queue

log: Final = structlog.get_logger(__name__)

EVACUATION: Final = "evacuation"
CONTROL: Final = "control"
CLOUD: Final = "cloud"
QUEUES: Final = (EVACUATION, CONTROL, CLOUD)
# Of one queue, what has a lower number is handed out first (kombu's Redis transport knows 0, 3, 6 and 9): what is there
# already, and costs something, does not wait behind what is to come.
PRIORITY_OF: Final = {"job": 6}
QUEUE_OF: Final = {"job": CONTROL, "runner": CONTROL, "host": CLOUD, "migration": EVACUATION, "installation": CONTROL}

SWEEP_INTERVAL_S: Final = 15.0
# Longer than any task, whose calls all end within a lease; shorter ones would run twice.
VISIBILITY_LIMIT_S: Final = 90
# Whoever sends a hint has something better to wait for than Redis.
SEND_LIMIT_S: Final = 1
# As many as pile up in some seconds of a full fleet; what does not fit is found by the sweep.
HINTS_MAX: Final = 1000
# To send a task takes a millisecond on a busy machine: whoever has told something so often within so long lets the
# rest pile up, and whoever has little to tell never waits.
ROUNDS_MAX: Final = 3
ROUNDS_INTERVAL_S: Final = 0.25
# Whoever gets a task keeps it until it has looked at all of its rows.
IDS_MAX: Final = 64

_ALWAYS: Final[dict[str, Any]] = {
    "task_ignore_result": True,
    "task_serializer": "json",
    "accept_content": ["json"],
    "task_queues": [Queue(name) for name in QUEUES],  # type: ignore[no-untyped-call]  # kombu has no types here
    "task_default_queue": CONTROL,
    "task_create_missing_queues": False,
    "broker_connection_retry_on_startup": True,
    "worker_hijack_root_logger": False,
}


def worker_app(redis_url: str) -> Celery:
    """Return the app that workers and the beat run; its tasks are added in `workers.tasks`."""
    app = Celery("spot-runner", broker=redis_url)
    app.conf.update(
        _ALWAYS,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        broker_connection_max_retries=None,
        broker_transport_options={
            "visibility_timeout": VISIBILITY_LIMIT_S,
            # A killed worker's tasks are handed on within seconds instead of minutes.
            "unacked_restore_interval": 2,
            "unacked_restore_throttle": 1,
            "socket_timeout": 5,
            "socket_connect_timeout": 2,
            "socket_keepalive": True,
            "health_check_interval": 10,
        },
        beat_schedule={f"sweep-{name}": _sweep(name) for name in QUEUES},
        beat_max_loop_interval=5,
    )
    return app


def _sweep(queue_name: str) -> dict[str, Any]:
    options = {"queue": queue_name, "expires": SWEEP_INTERVAL_S}
    return {"task": "sweep", "schedule": SWEEP_INTERVAL_S, "args": [queue_name], "options": options}


def sender_app(redis_url: str) -> Celery:
    """Return an app that only sends: a hung Redis costs it one second."""
    app = Celery("spot-runner", broker=redis_url)
    limits = {"socket_timeout": SEND_LIMIT_S, "socket_connect_timeout": SEND_LIMIT_S, "retry_on_timeout": False}
    app.conf.update(_ALWAYS, task_publish_retry=False, broker_transport_options=limits)
    return app


def sending_to(redis_url: str) -> Callable[[str, tuple[str, ...], str], None]:
    """Return what sends one hint: (kind, ids, queue)."""
    app = sender_app(redis_url)

    def send(kind: str, ids: tuple[str, ...], queue_name: str) -> None:
        priority = PRIORITY_OF.get(kind, 0)
        app.send_task(f"look_at_{kind}", args=ids, queue=queue_name, priority=priority, retry=False)

    return send


class BackgroundHints:
    """Hints that cost their giver nothing: one thread sends them, what it cannot send is dropped.

    Who tells much lets the rest pile up for `interval_s` at most, and goes together; what is urgent waits for nothing.
    The thread starts with the first hint, so the object may be made before a fork.
    """

    def __init__(
        self, send: Callable[[str, tuple[str, ...], str], None], interval_s: float = ROUNDS_INTERVAL_S
    ) -> None:
        self._send = send
        self._interval_s = interval_s
        self._is_urgent = threading.Event()
        self._waiting: queue.Queue[tuple[str, tuple[str, ...], str]] = queue.Queue(HINTS_MAX)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def look_at(self, kind: str, *ids: str, urgent: bool = False) -> None:
        """Ask a worker to look at these rows soon; returns at once and never raises."""
        if not ids:
            return
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="hints", daemon=True)
                self._thread.start()
        try:
            self._waiting.put_nowait((kind, ids, EVACUATION if urgent else QUEUE_OF[kind]))
            if urgent:
                self._is_urgent.set()
        except queue.Full:
            log.warning("hint_dropped", kind=kind, ids=ids, why="too many wait")

    def _run(self) -> None:
        rounds: deque[float] = deque(maxlen=ROUNDS_MAX)
        while True:
            self._is_urgent.clear()  # before the look: what is told after it, and is urgent, cuts the next pause short
            hints = self._piled_up()
            rounds.append(time.monotonic())
            for (kind, queue_name), ids in hints.items():
                for some in batched(ids, IDS_MAX):
                    try:
                        self._send(kind, some, queue_name)
                    except Exception as error:  # noqa: BLE001 - whatever a broker can raise, a lost hint is no loss
                        log.warning("hint_dropped", kind=kind, ids=some, why=repr(error))
            if len(rounds) == ROUNDS_MAX:
                self._is_urgent.wait(max(0.0, rounds[0] + self._interval_s - time.monotonic()))

    def _piled_up(self) -> dict[tuple[str, str], dict[str, None]]:
        """Wait for a hint and return it with all that came meanwhile, each id once."""
        waiting: list[tuple[str, tuple[str, ...], str]] = [self._waiting.get()]
        with suppress(queue.Empty):
            while True:
                waiting.append(self._waiting.get_nowait())
        rows: dict[tuple[str, str], dict[str, None]] = {}
        for kind, ids, queue_name in waiting:
            rows.setdefault((kind, queue_name), {}).update(dict.fromkeys(ids))
        return rows


def batched(ids: Iterable[str], size: int) -> Iterator[tuple[str, ...]]:
    """Cut these into pieces of at most this size."""
    rest = iter(ids)
    while some := tuple(islice(rest, size)):
        yield some
