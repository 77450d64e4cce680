"""The door of `/setup`: who may come in, by a token that `spot-runner setup` prints.

    handed out ──token, once──▶ inside (a session of one browser) ──▶ at GitHub (a state) ──state, once──▶ inside
         └── an hour ──▶ shut        └── an hour ──▶ shut

One person at a time: another token shuts out whoever is inside. Only hashes are kept.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from pydantic import TypeAdapter

from workers.domain.errors import Refused
from workers.ports import Clock
from workers.vault import Vault

OPEN_LIMIT: Final = timedelta(hours=1)
NAME: Final = "setup-door"


@dataclass(frozen=True)
class _Door:
    shuts_at: datetime
    token: str | None = None
    session: str | None = None
    state: str | None = None


_DOOR: Final = TypeAdapter(_Door)


class SetupDoor:
    """Raises `Unfit` if the vault is of no use."""

    def __init__(self, vault: Vault, clock: Clock) -> None:
        self._vault, self._clock = vault, clock

    def hand_out(self) -> str:
        """Return a token that lets one browser in within the hour; an earlier one is good for nothing any more."""
        token = secrets.token_urlsafe(32)
        with self._vault.alone():
            self._write(_Door(self._clock.now() + OPEN_LIMIT, token=_hash(token)))
        return token

    def enter(self, token: str) -> str:
        """Use a token up and return the session. Raises `Refused`."""
        session = secrets.token_urlsafe(32)
        with self._vault.alone():
            door = self._read()
            if door is None or not _is(token, door.token):
                raise Refused("that token lets nobody in, or not any more; `spot-runner setup` prints another")
            self._write(_Door(self._clock.now() + OPEN_LIMIT, session=_hash(session)))
        return session

    def is_inside(self, session: str | None) -> bool:
        """Say whether this browser was let in and still is."""
        door = self._read()
        return session is not None and door is not None and _is(session, door.session)

    def leave_for_github(self, session: str) -> str:
        """Return the state that must come back from GitHub with this browser; an earlier one is good for nothing."""
        state = secrets.token_urlsafe(32)
        with self._vault.alone():
            self._write(replace(self._inside(session), state=_hash(state)))
        return state

    def come_back(self, session: str, state: str) -> None:
        """Use the state up. Raises `Refused` if it is not the one that this browser left with."""
        with self._vault.alone():
            door = self._inside(session)
            if not _is(state, door.state):
                raise Refused("GitHub's answer does not belong to what this browser asked for; begin at /setup again")
            self._write(replace(door, state=None))

    def _inside(self, session: str) -> _Door:
        door = self._read()
        if door is None or not _is(session, door.session):
            raise Refused("this browser is not inside any more; `spot-runner setup` prints another token")
        return door

    def _read(self) -> _Door | None:
        content = self._vault.read(NAME)
        door = None if content is None else _DOOR.validate_json(content)
        return door if door is not None and self._clock.now() < door.shuts_at else None

    def _write(self, door: _Door) -> None:
        self._vault.write(NAME, _DOOR.dump_json(door))


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _is(secret: str, kept: str | None) -> bool:
    return kept is not None and hmac.compare_digest(_hash(secret), kept)
