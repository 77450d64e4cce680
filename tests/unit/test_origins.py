"""GitHub is asked once where a run comes from, however many of its jobs are looked at."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import cast

from tests.contract.store_rows import a_job
from tests.fakes.clock import FakeClock
from workers.domain.errors import SpotError, Unreachable
from workers.domain.job import RunSeen
from workers.domain.pools import Origin
from workers.ports import GitHub
from workers.reconcilers.origins import Origins

PATIENCE_S = 30.0
ASKERS = 5


class Asked:
    """Answers when it is let go; counts the questions."""

    def __init__(self, error: SpotError | None = None) -> None:
        self.questions = 0
        self.error = error
        self.let_go = threading.Event()

    def run(self, _installation_id: int, _repository: str, _run_id: int) -> RunSeen | None:
        self.questions += 1
        assert self.let_go.wait(PATIENCE_S)
        if self.error is not None:
            raise self.error
        return RunSeen(is_public=True, is_fork=True)


class Asking:
    """Many threads that ask about one run while the first question is still open."""

    def __init__(self, github: Asked) -> None:
        self.github = github
        self._has_come = threading.Semaphore(0)
        self.origins = Origins(cast("GitHub", github), FakeClock(), self._minds)

    def _minds(self) -> bool:
        self._has_come.release()
        return True

    def answers(self) -> list[Origin | str | BaseException]:
        with ThreadPoolExecutor(ASKERS) as threads:
            found = [threads.submit(self.origins.of, a_job(), ()) for _ in range(ASKERS)]
            for _ in found:
                assert self._has_come.acquire(timeout=PATIENCE_S)
            self.github.let_go.set()
            return [one.exception(PATIENCE_S) or one.result() for one in found]


def test_who_asks_about_one_run_at_the_same_time_shares_one_question() -> None:
    asking = Asking(Asked())
    assert asking.answers() == [Origin("octo/hello", is_public=True, is_fork=True)] * ASKERS
    assert asking.github.questions == 1
    other_run = replace(a_job(), run_id=1)
    asking.origins.of(other_run, ())
    assert asking.github.questions == 2


def test_all_hear_that_github_does_not_answer_and_the_next_one_asks_again() -> None:
    asking = Asking(Asked(Unreachable("GitHub is away")))
    assert all("does not answer" in str(one) for one in asking.answers())
    before, asking.github.error = asking.github.questions, None
    assert asking.origins.of(a_job(), ()) == Origin("octo/hello", is_public=True, is_fork=True)
    assert asking.github.questions == before + 1
