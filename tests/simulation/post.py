"""How deliveries travel in a story: whole payloads, read by the production receiver, each with its fate."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum, auto
from typing import Any

from tests.fakes.payloads import Said, payload
from webhook.deliveries import read
from workers.domain.events import Delivery, JobFact
from workers.ports import Clock

# The parts of a payload that the receiver reads; the others are left out, since there are many stories.
READ = frozenset({"action", "workflow_job", "repository", "installation", "deployment"})


class Fate(StrEnum):
    """What befalls the deliveries that are sent from now on."""

    FINE = auto()
    LOST = auto()
    """Until somebody asks GitHub to deliver it again."""
    DOUBLED = auto()
    LATE = auto()
    """By up to five minutes, so that others overtake it."""
    AGAIN = auto()
    """It comes, and a second time under another number, as `completed` does on a rerun."""


@dataclass(frozen=True)
class Letter:
    due_at: datetime
    guid: str
    body: bytes


@dataclass
class StoryPost:
    clock: Clock
    random: random.Random
    fate: Fate = Fate.FINE
    on_the_way: list[Letter] = field(default_factory=list)
    lost: list[Letter] = field(default_factory=list)

    def send(self, fact: JobFact) -> None:
        """Take what one delivery is to say."""
        self.post(fact.delivery, payload(_said(fact)))

    def post(self, guid: str, content: Mapping[str, Any]) -> None:
        """Take one delivery; of its payload it carries what the receiver reads."""
        now = self.clock.now()
        letter = Letter(now, guid, json.dumps({key: value for key, value in content.items() if key in READ}).encode())
        match self.fate:
            case Fate.FINE:
                self.on_the_way.append(letter)
            case Fate.LOST:
                self.lost.append(letter)
            case Fate.DOUBLED:
                self.on_the_way += [letter, self._later(letter)]
            case Fate.LATE:
                self.on_the_way.append(self._later(letter))
            case Fate.AGAIN:
                self.on_the_way += [letter, self._later(Letter(now, f"{letter.guid}-again", letter.body))]

    def arrived(self, now: datetime) -> list[Delivery]:
        """Return what arrives now, in no order."""
        return [_received(one, now) for one in self.letters(now)]

    def letters(self, now: datetime) -> list[Letter]:
        """Return the same as it is on the wire."""
        here = [one for one in self.on_the_way if one.due_at <= now]
        self.on_the_way = [one for one in self.on_the_way if one.due_at > now]
        self.random.shuffle(here)
        return here

    def replay(self) -> None:
        """Deliver again what failed: GitHub lists it, and does so when it is asked."""
        self.on_the_way += self.lost
        self.lost = []

    def _later(self, letter: Letter) -> Letter:
        delay = timedelta(seconds=self.random.uniform(0, 300))
        return Letter(letter.due_at + delay, letter.guid, letter.body)


def _said(fact: JobFact) -> Said:
    return Said(
        fact.action,
        fact.job_id,
        fact.run_id,
        fact.run_attempt,
        fact.labels,
        fact.runner_id,
        fact.runner_name,
        fact.conclusion,
        fact.deployment_at,
    )


def _received(letter: Letter, now: datetime) -> Delivery:
    headers = {"X-GitHub-Event": "workflow_job", "X-GitHub-Delivery": letter.guid, "Content-Type": "application/json"}
    return read(headers, letter.body, now)
