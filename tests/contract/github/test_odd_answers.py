"""Answers that are none of GitHub's: a proxy's page, half a document, another document, headers that say nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.contract.github.places import APP_ID, app_key
from workers.domain.errors import SpotError, Throttled, Unreachable
from workers.domain.listed import Scope
from workers.domain.names import JobId
from workers.domain.remark import Remark, Verdict
from workers.github.app import AppGitHub

HERE = 1, "octo-org/widgets"
REMARK = Remark("key", 1, "octo-org/widgets", "a" * 40, "name", Verdict.NEUTRAL, "title", "summary")
PLACES = ("octo-org", f"App {APP_ID}", "/app/installations")
BODIES = {
    "another document": '{"oops": 1}',
    "half a document": '{"broken',
    "a page": "<!DOCTYPE html><html><body>Welcome to the hotel</body></html>",
    "nothing": "",
    "a list of numbers": "[1, 2]",
    "a list for a document": '{"jobs": 4, "runners": [3], "runner_groups": {"id": 1}, "runner": [], "check_runs": 5}',
    "a deep one": "[" * 100_000,
}
CALLS: dict[str, Callable[[AppGitHub], object]] = {
    "register": lambda github: github.register(*HERE, "spot-runner-a", ["spot-runner"]),
    "number_of": lambda github: github.number_of(*HERE, "spot-runner-a"),
    "group_of": lambda github: github.group_of(*HERE, "builders"),
    "job": lambda github: github.job(*HERE, JobId(4)),
    "run": lambda github: github.run(*HERE, 4),
    "jobs_of": lambda github: github.jobs_of(*HERE, 4),
    "remark": lambda github: github.remark(REMARK),
    "unfinished_runs": lambda github: github.lists.unfinished_runs(Scope(*HERE)),
    "all_jobs": lambda github: github.lists.all_jobs(Scope(*HERE), 4),
    "registrations": lambda github: github.lists.registrations(Scope(*HERE)),
    "holds_deployment": lambda github: github.holds_deployment(*HERE, JobId(4)),
    "deliveries": lambda github: github.lists.deliveries(APP_ID),
    "installations": lambda github: github.lists.installations(APP_ID),
    "repositories": lambda github: github.lists.repositories(APP_ID),
}


@contextmanager
def answering(
    status: int, body: str | Callable[[], str], headers: dict[str, str] | None = None, *, tokens: bool = True
) -> Iterator[str]:
    """Serve this one answer, after a token if those are given; yield the address."""
    token = json.dumps({"token": "ghs_x", "expires_at": "2100-01-01T00:00:00Z"})

    class Odd(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            is_login = tokens and self.path.endswith("/access_tokens")
            said = (token if is_login else body() if callable(body) else body).encode()
            self.send_response(201 if is_login else status)
            for name, value in ({} if is_login else headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_: object) -> None:
            pass

    for verb in ("GET", "POST", "PATCH", "DELETE"):
        setattr(Odd, f"do_{verb}", Odd.answer)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Odd)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def github_at(url: str) -> AppGitHub:
    return AppGitHub(url, {APP_ID: app_key()[0]})


def error_of(github: AppGitHub, call: str) -> SpotError:
    with pytest.raises(SpotError) as caught:
        CALLS[call](github)
    assert len(str(caught.value).splitlines()) == 1, "one sentence"
    assert len(str(caught.value)) < 600
    return caught.value


@pytest.mark.parametrize("body", BODIES)
def test_an_answer_that_is_none_of_githubs_is_one_sentence_and_asked_for_again(body: str) -> None:
    with answering(200, BODIES[body]) as url:
        github = github_at(url)
        for call in CALLS:
            error = error_of(github, call)
            assert isinstance(error, Unreachable)
            assert any(place in str(error) for place in ("octo-org", f"App {APP_ID}", "/app/installations")), (
                "the place"
            )
            assert "what was answered is not what GitHub's API answers" in str(error)
            assert error.__cause__ is not None


@pytest.fixture(scope="module")
def anything() -> Iterator[tuple[list[str], AppGitHub]]:
    """Something that answers whatever the one entry of this list is."""
    said = ["{}"]
    with answering(200, lambda: said[0]) as url:
        yield said, github_at(url)


NAMES = st.sampled_from(
    (
        *("jobs", "runners", "runner_groups", "runner", "check_runs", "repositories", "workflow_runs", "repository"),
        *("id", "guid", "name", "status", "conclusion", "labels", "delivered_at", "account", "suspended_at", "busy"),
        *("full_name", "login", "private", "run_id", "updated_at", "encoded_jit_config", "status_code", "head_sha"),
    )
)
PIECES = st.one_of(
    st.none(), st.booleans(), st.integers(-1, 1 << 70), st.text(max_size=8), st.just("2026-11-30T00:00Z")
)


@given(st.recursive(PIECES, lambda parts: st.lists(parts, max_size=2) | st.dictionaries(NAMES, parts, max_size=8)))
@settings(max_examples=40, deadline=None, database=None)
def test_whatever_json_is_answered_is_understood_or_one_sentence(
    anything: tuple[list[str], AppGitHub], body: object
) -> None:
    """Of pieces that GitHub's answers have, in places in which they have them or not."""
    anything[0][0] = json.dumps(body)
    for call in CALLS.values():
        sentence = sentence_of(call, anything[1])
        assert len(sentence.splitlines()) <= 1, "one sentence"
        assert len(sentence) < 600


def sentence_of(call: Callable[[AppGitHub], object], github: AppGitHub) -> str:
    """Return what is said of the answer; nothing if it is understood."""
    try:
        call(github)
    except SpotError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("body", [body for body in BODIES if body != "a list of numbers"])
def test_so_is_one_in_the_place_of_a_token(body: str) -> None:
    with answering(201, BODIES[body], tokens=False) as url:
        assert isinstance(error_of(github_at(url), "job"), Unreachable)


@pytest.mark.parametrize("body", ["half a document", "a page", "a list of numbers", "a deep one"])
def test_a_page_that_says_that_something_is_down_is_one_sentence(body: str) -> None:
    with answering(503, BODIES[body]) as url:
        error = error_of(github_at(url), "job")
    assert isinstance(error, Unreachable)
    assert "GitHub answered 503" in str(error)


@pytest.mark.parametrize(
    ("name", "said"),
    [("Retry-After", "inf"), ("Retry-After", "1e300"), ("X-RateLimit-Limit", "inf"), ("X-RateLimit-Reset", "soon")],
)
def test_headers_that_say_nothing_sound_are_not_obeyed(name: str, said: str) -> None:
    with answering(429, "{}", {name: said}) as url:
        error = error_of(github_at(url), "job")
    # PyGithub itself reads some of them, and gives up.
    assert isinstance(error, Throttled) or "is not what GitHub's API answers" in str(error)
