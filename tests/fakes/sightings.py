"""What the memory store was told lately."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime

from workers.domain.events import Delivery, JobFact
from workers.domain.installation import Installation, heard
from workers.domain.listed import Scope
from workers.domain.messages import RunnerReport
from workers.domain.names import HostId, JobId


class Sightings:
    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._installations: dict[int, Installation] = {}
        self._seen: set[str] = set()
        self._facts: dict[str, JobFact] = {}
        self._deliveries: dict[str, Delivery] = {}
        self._last_words: dict[HostId, tuple[RunnerReport, ...]] = {}

    def write_deliveries(self, rows: Sequence[Delivery]) -> None:
        with self.lock:
            for row in rows:
                is_known = row.guid in self._deliveries
                self._deliveries.setdefault(row.guid, row)
                if row.fact is not None:
                    self._facts.setdefault(row.fact.delivery, row.fact)
                if row.installation is not None and not is_known:
                    key = row.installation.installation_id
                    self._installations[key] = heard(self._installations.get(key), row.installation)

    def installation(self, installation_id: int) -> Installation | None:
        return self._installations.get(installation_id)

    def facts_of(self, job_id: JobId) -> Sequence[JobFact]:
        return [fact for fact in self._facts.values() if fact.job_id == job_id]

    def jobs_with_unseen_facts(self) -> Sequence[JobId]:
        return list(dict.fromkeys(one.job_id for key, one in self._facts.items() if key not in self._seen))

    def has_unseen_facts(self, job_id: JobId) -> bool:
        return job_id in self.jobs_with_unseen_facts()

    def mark_seen(self, facts: Iterable[JobFact]) -> None:
        self._seen.update(fact.delivery for fact in facts)

    def known_deliveries(self, guids: Collection[str]) -> Collection[str]:
        return {guid for guid in guids if guid in self._deliveries}

    def active_repositories(self, since: datetime) -> Sequence[Scope]:
        latest = reversed([one for one in self._facts.values() if one.seen_at >= since])
        return list(dict.fromkeys(Scope(one.installation_id, one.repository) for one in latest))

    def said_by(self, heard: Collection[HostId]) -> Mapping[HostId, Sequence[RunnerReport]]:
        return {host_id: said for host_id, said in self._last_words.items() if host_id in heard}
