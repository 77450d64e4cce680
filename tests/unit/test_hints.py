from __future__ import annotations

import queue
import threading

from workers.app import CLOUD, CONTROL, EVACUATION, HINTS_MAX, IDS_MAX, QUEUES, ROUNDS_MAX, BackgroundHints, worker_app

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
    sent = [broker.sent.get(timeout=PATIENCE_S) for _ in range(5)]
    assert {(kind, where) for kind, _, where in sent} == {
        ("job", CONTROL),
        ("runner", CONTROL),
        ("host", CLOUD),
        ("migration", EVACUATION),
        ("host", EVACUATION),
    }
    assert {ids for _, ids, where in sent if where != EVACUATION} == {("a", "b")}


def test_a_hint_about_nothing_is_not_sent() -> None:
    broker = Broker()
    hints = BackgroundHints(broker.send)
    hints.look_at("job")
    hints.look_at("job", "1")
    assert broker.sent.get(timeout=PATIENCE_S) == ("job", ("1",), CONTROL)


def test_a_broker_that_hangs_holds_nobody_up_and_what_piles_up_is_dropped() -> None:
    broker = Broker(hangs=True)
    hints = BackgroundHints(broker.send)
    hints.look_at("job", "0")
    eventually_taken(hints)
    for number in range(1, HINTS_MAX * 2):
        hints.look_at("job", str(number))  # would never return if it waited
    broker.let_go.set()
    sent = list[str]()
    while len(sent) < HINTS_MAX + 1:
        sent += broker.sent.get(timeout=PATIENCE_S)[1]
    assert sent == [str(number) for number in range(len(sent))]
    hints.look_at("job", "later")
    assert broker.sent.get(timeout=PATIENCE_S)[1] == ("later",), "nothing else was kept"


def test_what_piles_up_goes_together_each_row_once_and_not_too_many_in_one_task() -> None:
    broker = Broker(hangs=True)
    hints = BackgroundHints(broker.send)
    hints.look_at("runner", "first")
    eventually_taken(hints)
    many = 2 * IDS_MAX + 8
    for number in range(many):
        hints.look_at("job", str(number), str(number // 2))
    broker.let_go.set()
    sent = [broker.sent.get(timeout=PATIENCE_S) for _ in range(4)]
    assert sent[0] == ("runner", ("first",), CONTROL)
    assert [len(ids) for _, ids, _ in sent[1:]] == [IDS_MAX, IDS_MAX, 8]
    assert {id_ for _, ids, _ in sent[1:] for id_ in ids} == {str(number) for number in range(many)}


def test_who_has_told_much_lets_the_rest_pile_up_until_something_is_urgent() -> None:
    broker = Broker()
    hints = BackgroundHints(broker.send, interval_s=10 * PATIENCE_S)
    for number in range(ROUNDS_MAX):
        hints.look_at("job", f"alone {number}")
        assert broker.sent.get(timeout=PATIENCE_S)[1] == (f"alone {number}",)
    for number in range(3):
        hints.look_at("job", f"piled {number}")
    hints.look_at("host", "noticed", urgent=True)
    sent = [broker.sent.get(timeout=PATIENCE_S) for _ in range(2)]
    assert sent == [("job", ("piled 0", "piled 1", "piled 2"), CONTROL), ("host", ("noticed",), EVACUATION)]


def eventually_taken(hints: BackgroundHints) -> None:
    pause = threading.Event()
    for _ in range(int(PATIENCE_S * 200)):
        if hints._waiting.empty():
            return
        pause.wait(0.005)
    raise AssertionError("nobody sends it")


def test_a_hint_that_is_lost_does_not_end_the_next_one() -> None:
    broker = Broker(refuses=True)
    hints = BackgroundHints(broker.send)
    for number in "12":
        hints.look_at("job", number)
        assert broker.sent.get(timeout=PATIENCE_S)[1] == (number,)


def test_the_beat_sweeps_on_every_queue() -> None:
    schedule = worker_app("redis://localhost").conf.beat_schedule
    assert {(entry["task"], entry["options"]["queue"]) for entry in schedule.values()} == {
        ("sweep", name) for name in QUEUES
    }
