"""The door of /setup: one token, once; one state, once; an hour."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path

import pytest

from tests.contract.store_rows import ManualClock
from workers.domain.errors import Refused
from workers.door import OPEN_LIMIT, SetupDoor
from workers.vault import Vault


@pytest.fixture
def door(tmp_path: Path, clock: ManualClock) -> SetupDoor:
    return SetupDoor(Vault(tmp_path), clock)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def is_refused(door: SetupDoor, token: str) -> bool:
    try:
        door.enter(token)
    except Refused:
        return True
    return False


def test_a_token_lets_one_browser_in_once(door: SetupDoor, tmp_path: Path) -> None:
    token = door.hand_out()
    session = door.enter(token)
    assert door.is_inside(session)
    assert SetupDoor(Vault(tmp_path), ManualClock()).is_inside(session), "another process knows it, too"
    assert is_refused(door, token)
    assert door.is_inside(session)
    assert not any(door.is_inside(other) for other in (None, "", token, session[:-1]))


def test_before_a_token_was_handed_out_nobody_comes_in(door: SetupDoor) -> None:
    assert all(is_refused(door, token) for token in ("", "None", "x"))
    assert not door.is_inside("")


def test_another_token_shuts_out_who_had_the_first_and_who_is_inside(door: SetupDoor) -> None:
    first = door.hand_out()
    second = door.hand_out()
    assert is_refused(door, first)
    session = door.enter(second)
    door.hand_out()
    assert not door.is_inside(session)


def test_token_and_session_are_good_for_an_hour(door: SetupDoor, clock: ManualClock) -> None:
    token = door.hand_out()
    clock.move(OPEN_LIMIT)
    assert is_refused(door, token)
    token = door.hand_out()
    clock.move(OPEN_LIMIT - timedelta(seconds=1))
    session = door.enter(token)
    clock.move(OPEN_LIMIT - timedelta(seconds=1))
    assert door.is_inside(session)
    clock.move(timedelta(seconds=1))
    assert not door.is_inside(session)
    with pytest.raises(Refused, match="not inside any more"):
        door.leave_for_github(session)


def test_a_state_comes_back_once_and_with_its_own_session(door: SetupDoor) -> None:
    session = door.enter(door.hand_out())
    with pytest.raises(Refused, match="does not belong"):
        door.come_back(session, "")
    first = door.leave_for_github(session)
    state = door.leave_for_github(session)
    for wrong in ("", first, session, state + "x"):
        with pytest.raises(Refused, match="does not belong"):
            door.come_back(session, wrong)
    with pytest.raises(Refused, match="not inside"):
        door.come_back("another", state)
    door.come_back(session, state)
    with pytest.raises(Refused, match="does not belong"):
        door.come_back(session, state)
    assert door.is_inside(session)


def test_of_many_at_once_the_token_lets_one_in(door: SetupDoor) -> None:
    token, inside, start = door.hand_out(), list[str](), threading.Barrier(8)

    def enter() -> None:
        start.wait()
        try:
            inside.append(door.enter(token))
        except Refused:
            return

    threads = [threading.Thread(target=enter) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(inside) == 1


def test_no_secret_is_kept_in_clear(door: SetupDoor, tmp_path: Path) -> None:
    token = door.hand_out()
    session = door.enter(token)
    state = door.leave_for_github(session)
    kept = Vault(tmp_path).read("setup-door")
    assert kept is not None
    assert not any(secret.encode() in kept for secret in (token, session, state))
