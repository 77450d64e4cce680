"""Tokens that end before their time: revoked, by a clock that is wrong, or on a bad day of GitHub's."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
from github.Requester import Requester

from tests.contract.github.places import APP_ID, Place, app_key
from tests.contract.github.test_odd_answers import answering
from workers.domain.errors import Throttled, Unrecognized
from workers.domain.listed import Scope
from workers.domain.names import JobId
from workers.domain.pace import Heard, Permit, Wish
from workers.domain.remark import Remark, Verdict
from workers.github.app import AppGitHub
from workers.github.login import Login, Token
from workers.github.pace import NoPace

LABELS = ["spot-runner"]
THREADS = 12
SHA = "0123456789abcdef0123456789abcdef01234567"


class Noted(NoPace):
    """Grants as many calls as it may, and notes which installation each was granted to; 0: the App itself."""

    def __init__(self, granted_max: int = 1000) -> None:
        self.granted: list[int] = []
        self.settled: list[int] = []
        self._granted_max = granted_max

    def take(self, wish: Wish) -> Permit:
        if len(self.granted) >= self._granted_max:
            raise Throttled("nothing is left")
        permit = super().take(wish)
        self.granted.append(permit.seat.installation)
        return permit

    def settle(self, permit: Permit, heard: Heard) -> None:
        self.settled.append(permit.seat.installation)


def github_at(url: str, pace: Noted) -> AppGitHub:
    return AppGitHub(url, {APP_ID: app_key()[0]}, pace)


def expire(place: Place) -> None:
    assert place.control.expire_tokens() >= 1


def remark_of(place: Place) -> Remark:
    return Remark("k1", place.installation, place.repository, SHA, "spot-runner", Verdict.NEUTRAL, "Lost", "It was.")


CALLS: dict[str, Callable[[AppGitHub, Place, int], object]] = {
    "job": lambda github, place, job: github.job(place.installation, place.repository, JobId(job)),
    "register": lambda github, place, _: github.register(place.installation, place.repository, "spot-runner-a", LABELS),
    "rerun_failed": lambda github, place, job: github.rerun_failed(
        place.installation, place.repository, place.control.job(job)["run_id"]
    ),
    "rerun_job": lambda github, place, job: github.rerun_job(place.installation, place.repository, JobId(job)),
    "remark": lambda github, place, _: github.remark(remark_of(place)),
    "registrations": lambda github, place, _: github.lists.registrations(Scope(place.installation, place.repository)),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_token_that_ends_before_its_time_is_nobodys_trouble(place: Place, call: str) -> None:
    (job,) = place.control.start_jobs(place.repository, LABELS, [("one", "true")])
    place.control.cancel(job)
    github = place.port()
    assert github.job(place.installation, place.repository, JobId(job)) is not None
    expire(place)
    CALLS[call](github, place, job)


def test_what_is_asked_with_another_token_has_a_permit_of_its_own(place: Place) -> None:
    pace, here = Noted(), place.installation
    github = github_at(place.url, pace)
    github.job(here, place.repository, JobId(4))
    expire(place)
    github.job(here, place.repository, JobId(4))
    # A login and a call; the same call in vain; and both again. Each call is granted, and then its login is.
    assert pace.granted == [here, 0, here, here, 0]
    assert sorted(pace.settled) == sorted(pace.granted)


def test_there_is_no_other_try_without_a_budget_and_whoever_asked_comes_back(place: Place) -> None:
    pace, here = Noted(granted_max=3), place.installation
    github = github_at(place.url, pace)
    github.job(here, place.repository, JobId(4))
    expire(place)
    with pytest.raises(Throttled):
        github.register(here, place.repository, "spot-runner-a", LABELS)
    assert pace.granted == [here, 0, here]


def test_a_second_token_that_is_not_taken_is_the_end_of_it() -> None:
    pace = Noted()
    with answering(401, '{"message": "Bad credentials"}') as url:
        github = github_at(url, pace)
        with pytest.raises(Unrecognized, match="401, Bad credentials"):
            github.register(1, "octo-org/widgets", "spot-runner-a", LABELS)
        assert pace.granted == [1, 0, 1, 0]
        with pytest.raises(Unrecognized):
            github.job(1, "octo-org/widgets", JobId(4))
    assert pace.granted[4:] == [1, 0, 1, 0], "the token that was not taken is not used again"


def test_the_apps_own_key_is_tried_once(place: Place) -> None:
    """A key that GitHub does not take is the same the next time."""
    pace = Noted()
    github = AppGitHub(place.url, {APP_ID + 1: app_key()[0]}, pace)
    with pytest.raises(Unrecognized):
        github.job(place.installation, place.repository, JobId(4))
    assert pace.granted == [place.installation, 0]


def test_threads_whose_token_ends_under_their_hands_share_the_next_one(place: Place) -> None:
    pace = Noted()
    github = github_at(place.url, pace)
    together = threading.Barrier(THREADS, action=lambda: expire(place))

    def register(number: int) -> int:
        github.job(place.installation, place.repository, JobId(4))
        together.wait(60)
        return github.register(place.installation, place.repository, f"spot-runner-{number}", LABELS).github_id

    with ThreadPoolExecutor(THREADS) as pool:
        assert len(set(pool.map(register, range(THREADS)))) == THREADS
    assert pace.granted.count(0) == 2


@pytest.fixture
def login() -> Login:
    return Login("http://127.0.0.1:9", APP_ID, app_key()[0])


def fetching() -> Iterator[Token]:
    for number in count(1):
        yield Token(f"token {number}", datetime.now(UTC) + timedelta(hours=1))


def test_who_hears_late_that_a_token_has_ended_leaves_the_next_one_alone(login: Login) -> None:
    """Otherwise each of many threads would log in anew."""
    tokens = fetching()

    def client() -> Requester:
        return login.as_installation(1, lambda: next(tokens))

    with ThreadPoolExecutor(1) as other:
        other.submit(client).result(60)
        client()
        login.forget(1)
        client()
        other.submit(login.forget, 1).result(60)
        other.submit(client).result(60)
    client()
    assert next(tokens).text == "token 3"
