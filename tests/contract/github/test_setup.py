"""How the App is made and looked at, against the simulated GitHub, whose every answer keeps the published contract."""

from __future__ import annotations

import http.server
import json
import threading
import traceback
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.contract.github.places import APP_ID, Place, app_key, free_port
from workers.domain.errors import BadInput, Refused, Unreachable
from workers.domain.github_app import EVENTS, PERMISSIONS, GitHubApp, lacks
from workers.domain.github_site import github_site
from workers.github.app import AppGitHub
from workers.github.setup import SetupGitHub


def test_an_app_is_made_of_its_manifest_once(place: Place) -> None:
    github, code = SetupGitHub(place.url), place.make_app(f"Octo {place.owner}")
    app = github.convert(code)
    assert len(app.webhook_secrets[0]) == 40
    seen = github.look(app)
    assert (seen.name, seen.owner, seen.is_of_organization) == (f"Octo {place.owner}", place.owner, True)
    assert (seen.permissions, seen.events) == (PERMISSIONS, EVENTS)
    assert (seen.hook_url, seen.hook_content_type) == ("http://127.0.0.1:9/github", "json")
    assert (seen.is_hook_insecure, seen.installations) == (False, ())
    with pytest.raises(Refused, match="404"):
        github.convert(code)


def test_what_an_account_has_not_accepted_is_seen(place: Place) -> None:
    fewer = {name: level for name, level in PERMISSIONS.items() if name != "checks"}
    place.control.install(f"{place.owner}-careful", permissions=fewer)
    seen = SetupGitHub(place.url).look(GitHubApp(APP_ID, app_key()[0], ()))
    assert place.owner in [one.account for one in seen.installations]
    said = lacks(seen, place.receiver.url, place.url)
    (mine,) = [sentence for sentence in said if sentence.startswith(f"{place.owner}-careful ")]
    assert "has not accepted checks: write;" in mine
    assert f"/organizations/{place.owner}-careful/settings/installations/" in mine


def test_every_installation_is_seen_though_they_come_in_pages(place: Place) -> None:
    app = SetupGitHub(place.url).convert(place.make_app(f"Many {place.owner}"))
    slug = SetupGitHub(place.url).look(app).page.rpartition("/")[2]
    for number in range(101):
        form = {"account": f"{place.owner}-{number}"}
        assert place.http.post(f"{place.url}/apps/{slug}/installations", data=form).status_code == 302
    assert len(SetupGitHub(place.url).look(app).installations) == 101


@pytest.mark.parametrize("is_public", [True, False])
def test_whether_anybody_may_install_the_app_is_seen(place: Place, *, is_public: bool) -> None:
    code = place.make_app(f"Open {is_public} {place.owner}"[:34], public=is_public)
    app = SetupGitHub(place.url).convert(code)
    assert SetupGitHub(place.url).look(app).is_public is is_public
    assert place.control.violations() == []


@pytest.mark.parametrize("kind", ["unavailable", "forbidden"])
def test_where_nobody_is_told_it_is_not_known_and_everything_else_is(place: Place, kind: str) -> None:
    app = SetupGitHub(place.url).convert(place.make_app(f"Shy {kind} {place.owner}"[:34]))
    slug = SetupGitHub(place.url).look(app).page.rpartition("/")[2]
    place.control.plant(kind, "GET", f"/apps/{slug}")
    seen = SetupGitHub(place.url).look(app)
    assert (seen.is_public, seen.events) == (None, EVENTS)


def test_who_is_not_the_app_is_refused(place: Place) -> None:
    app = GitHubApp(APP_ID, app_key()[0], ())
    with pytest.raises(Refused, match=f"the App {APP_ID + 1000}: GitHub answered 401"):
        SetupGitHub(place.url).look(replace(app, id=APP_ID + 1000))
    with pytest.raises(BadInput, match="private key is of no use"):
        SetupGitHub(place.url).look(replace(app, key_pem="nonsense"))


def test_one_app_is_told_nothing_of_anothers_installations(place: Place) -> None:
    app = SetupGitHub(place.url).convert(place.make_app(f"Lonely {place.owner}"))
    assert SetupGitHub(place.url).look(app).installations == ()


def test_a_github_that_is_not_there_is_unreachable() -> None:
    github = SetupGitHub(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(Unreachable):
        github.convert("code")
    with pytest.raises(Unreachable):
        github.look(GitHubApp(APP_ID, app_key()[0], ()))


def test_github_on_a_bad_day_is_asked_again_later(place: Place) -> None:
    place.control.plant("unavailable", "GET", "/app/hook/config")
    with pytest.raises(Unreachable, match="503"):
        SetupGitHub(place.url).look(GitHubApp(APP_ID, app_key()[0], ()))


@pytest.fixture
def strange() -> Iterator[tuple[str, dict[str, object]]]:
    """Something that is no GitHub: its address, and what it answers to everything; under `paths`, what was asked."""
    paths: list[str] = []
    answers: dict[str, object] = {"paths": paths}

    class Answering(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # the name that the library calls
            paths.append(self.path)
            body = json.dumps(answers["all"]).encode()
            self.send_response(201)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the library's name
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", answers
        server.shutdown()


@pytest.mark.parametrize(
    ("answer", "place"),
    [
        ({"id": 1, "pem": "hush-key"}, "webhook_secret"),
        ({"id": 1, "pem": "hush-key", "webhook_secret": None}, "webhook_secret"),
        ({"id": "hush-key", "pem": "", "webhook_secret": "hush-secret"}, "id"),
        ([], "the whole"),
    ],
)
def test_an_answer_that_makes_no_sense_is_refused_without_its_secrets(
    strange: tuple[str, dict[str, object]], answer: object, place: str
) -> None:
    strange[1]["all"] = answer
    with pytest.raises(Refused, match=f"lacks sense at {place}: ") as refused:
        SetupGitHub(strange[0]).convert("code")
    assert "hush" not in "".join(traceback.format_exception(refused.value))


def test_a_key_that_is_none_is_refused_without_being_shown(strange: tuple[str, dict[str, object]]) -> None:
    strange[1]["all"] = {"id": 1, "pem": "hush-key", "webhook_secret": "hush-secret"}
    with pytest.raises(BadInput, match="private key is of no use") as refused:
        SetupGitHub(strange[0]).convert("code")
    assert "hush" not in str(refused.value)


def test_an_enterprise_server_is_asked_below_its_own_root(strange: tuple[str, dict[str, object]]) -> None:
    """Token and registration alike: PyGithub must take the whole root, not the host alone."""
    strange[1]["all"] = {
        "token": "ghs_x",
        "expires_at": "2099-01-01T00:00:00Z",
        "permissions": {},
        "repository_selection": "all",
        "runner": {"id": 5},
        "encoded_jit_config": "x",
    }
    site = github_site(f"{strange[0]}/api/v3")
    AppGitHub(site.api, {APP_ID: app_key()[0]}).register(3, "octo/hello", "spot-runner-a", ["spot-runner"])
    with pytest.raises(Refused):
        SetupGitHub(site.api).convert("code")
    assert strange[1]["paths"] == [
        "/api/v3/app/installations/3/access_tokens",
        "/api/v3/repos/octo/hello/actions/runners/generate-jitconfig",
        "/api/v3/app-manifests/code/conversions",
    ]


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "x" * 35},
        {"default_events": ["workflow_job", "installation"]},
        {"default_permissions": {"runners": "write"}},
        {"default_permissions": {"metadata": "admin"}},
        {"redirect_url": "setup"},
    ],
)
def test_the_simulator_refuses_a_manifest_that_github_would_refuse(place: Place, changed: dict[str, object]) -> None:
    with pytest.raises(AssertionError):
        place.make_app("Refused", **changed)
