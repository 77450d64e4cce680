from __future__ import annotations

import queue
import threading

from workers.app import CLOUD, CONTROL, EVACUATION, HINTS_MAX, QUEUES, BackgroundHints, worker_app

PATIENCE_S = 30.0
Sent = tuple[str, tuple[str, ...], str]


class Broker:
    """Takes what is sent; may hang until it is let go, or refuse everything."""

    def __init__(self, *, hangs: bool = False, refuses: bool = False) -> None:
        self.sent: queue.Queue[Sent] = queue.Queue()
        self.let_go = threading.Event()
        self._refuses = refuses
        if not hangs:
            self.let_go.set()

    def send(self, kind: str, ids: tuple[str, ...], queue_name: str) -> None:
        assert self.let_go.wait(PATIENCE_S)
        self.sent.put((kind, ids, queue_name))
        if self._refuses:
            raise ConnectionError("no broker")


def test_each_kind_goes_to_its_queue_and_what_is_urgent_to_the_evacuation() -> None:
    broker = Broker()
    hints = BackgroundHints(broker.send)
    for kind in ("job", "runner", "host", "migration"):
        hints.look_at(kind, "a", "b")
    hints.look_at("host", "noticed", urgent=True)
    queues = [broker.sent.get(timeout=PATIENCE_S)[2] for _ in range(5)]
    assert queues == [CONTROL, CONTROL, CLOUD, EVACUATION, EVACUATION]


def test_a_hint_about_nothing_is_not_sent() -> None:
    broker = Broker()
    hints = BackgroundHints(broker.send)
    hints.look_at("job")
    hints.look_at("job", "1")
    assert broker.sent.get(timeout=PATIENCE_S) == ("job", ("1",), CONTROL)


def test_a_broker_that_hangs_holds_nobody_up_and_what_piles_up_is_dropped() -> None:
    broker = Broker(hangs=True)
    hints = BackgroundHints(broker.send)
    for number in range(HINTS_MAX * 2):
        hints.look_at("job", str(number))  # would never return if it waited
    broker.let_go.set()
    numbers = [int(broker.sent.get(timeout=PATIENCE_S)[1][0]) for _ in range(HINTS_MAX)]
    assert numbers == list(range(HINTS_MAX))


def test_a_hint_that_is_lost_does_not_end_the_next_one() -> None:
    broker = Broker(refuses=True)
    hints = BackgroundHints(broker.send)
    hints.look_at("job", "1")
    hints.look_at("job", "2")
    assert [broker.sent.get(timeout=PATIENCE_S)[1] for _ in range(2)] == [("1",), ("2",)]


def test_the_beat_sweeps_on_every_queue() -> None:
    schedule = worker_app("redis://localhost").conf.beat_schedule
    assert {(entry["task"], entry["options"]["queue"]) for entry in schedule.values()} == {
        ("sweep", name) for name in QUEUES
    }
