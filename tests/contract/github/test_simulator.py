"""The simulated GitHub keeps the published contract, notices whoever does not, and refuses whom GitHub would refuse."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from github import Auth, GithubIntegration
from jwt import encode

from tests.contract.github.places import APP_ID, Json, Place, PlayedRunner, app_jwt, app_key, simulated_github, until
from workers.rehearsal.github.cut import OPERATIONS
from workers.rehearsal.github.records import Tree

LABELS = ["spot-runner"]
STEPS = [("one", "true")]


@pytest.fixture(scope="module")
def spoiled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A simulated GitHub of this module's own, in which the contract is broken on purpose; its tokens live 2 s."""
    with simulated_github(tmp_path_factory.mktemp("spoiled"), token_seconds=2) as place:
        yield place


def test_every_operation_of_the_cut_answers_as_published(place: Place) -> None:
    """Each is called once, so the check of request and response has run on each; the fixture looks for breaches."""
    caller = Caller(place)
    call_as_app(caller)
    call_with_a_manifest(caller)
    for scope in ("/repos/{owner}/{repo}", "/orgs/{org}"):
        call_for_runners(caller, scope)
    caller.ask("installation", "get /orgs/{org}/actions/runner-groups", 200)
    call_for_runs(caller)
    call_for_checks(caller)
    assert caller.asked == {(verb, path) for path, verbs in OPERATIONS.items() for verb in verbs}


class Caller:
    """Calls operations by their published templates and remembers which."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.asked: set[tuple[str, str]] = set()
        self._logins = {"app": app_jwt(), "installation": place.token()}

    def ask(self, login: str, operation: str, status: int, body: Tree = None, **more: int | str) -> Tree:
        verb, template = operation.split(" ")
        owner = self.place.owner
        path = template.format(owner=owner, org=owner, repo="widgets", **more)
        answer = self.place.ask(verb.upper(), path, self._logins[login], body)
        assert answer.status_code == status, answer.text
        self.asked.add((verb, template))
        return answer.json() if answer.content else None


def call_as_app(caller: Caller) -> None:
    place, one = caller.place, {"installation_id": caller.place.installation}
    job_id = place.control.start_jobs(place.repository, LABELS, STEPS)[0]
    caller.ask("app", "get /app", 200)
    caller.ask("app", "get /app/hook/config", 200)
    assert caller.ask("app", "get /app/installations", 200), "a page of them; ours may be on a later one"
    caller.ask("app", "get /app/installations/{installation_id}", 200, **one)
    caller.ask("app", "get /repos/{owner}/{repo}/installation", 200)
    caller.ask("app", "get /orgs/{org}/installation", 200)
    caller.ask("app", "post /app/installations/{installation_id}/access_tokens", 201, **one)
    until(lambda: any(one["job_id"] == job_id for one in place.control.deliveries()), "a delivery was tried")
    delivery_id = until(lambda: caller.ask("app", "get /app/hook/deliveries", 200), "it is listed")[0]["id"]
    caller.ask("app", "get /app/hook/deliveries/{delivery_id}", 200, delivery_id=delivery_id)
    caller.ask("app", "post /app/hook/deliveries/{delivery_id}/attempts", 202, delivery_id=delivery_id)


def call_with_a_manifest(caller: Caller) -> None:
    code = caller.place.make_app(f"Spot of {caller.place.owner}")
    operation = "post /app-manifests/{code}/conversions"
    assert caller.ask("app", operation, 201, code=code)["pem"].startswith("-----BEGIN RSA PRIVATE KEY-----")
    caller.ask("app", operation, 404, code=code)
    slug = f"spot-of-{caller.place.owner}"
    assert caller.ask("app", "get /apps/{app_slug}", 200, app_slug=slug)["slug"] == slug


def call_for_runners(caller: Caller, scope: str) -> None:
    wish: Json = {"name": "spot-runner-a", "runner_group_id": 1, "labels": LABELS, "work_folder": "_work"}
    made = caller.ask("installation", f"post {scope}/actions/runners/generate-jitconfig", 201, wish)
    runner_id = made["runner"]["id"]
    listed = caller.ask("installation", f"get {scope}/actions/runners", 200)
    assert [one["name"] for one in listed["runners"]] == ["spot-runner-a"]
    caller.ask("installation", f"get {scope}/actions/runners/{{runner_id}}", 200, runner_id=runner_id)
    caller.ask("installation", f"delete {scope}/actions/runners/{{runner_id}}", 204, runner_id=runner_id)


def call_for_runs(caller: Caller) -> None:
    place, actions = caller.place, "/repos/{owner}/{repo}/actions"
    job_id = place.control.start_jobs(place.repository, LABELS, STEPS)[0]
    run_id = place.control.job(job_id)["run_id"]
    (repository,) = caller.ask("installation", "get /installation/repositories", 200)["repositories"]
    assert repository["full_name"] == place.repository
    caller.ask("installation", f"get {actions}/jobs/{{job_id}}", 200, job_id=job_id)
    caller.ask("installation", f"get {actions}/runs", 200)
    caller.ask("installation", f"get {actions}/runs/{{run_id}}", 200, run_id=run_id)
    caller.ask("installation", f"get {actions}/runs/{{run_id}}/jobs", 200, run_id=run_id)
    place.control.cancel(job_id)
    caller.ask("installation", f"post {actions}/runs/{{run_id}}/rerun-failed-jobs", 201, run_id=run_id)
    other_id = place.control.start_jobs(place.repository, LABELS, STEPS)[0]
    place.control.cancel(other_id)
    caller.ask("installation", f"post {actions}/jobs/{{job_id}}/rerun", 201, job_id=other_id)


def call_for_checks(caller: Caller) -> None:
    repository, words = "/repos/{owner}/{repo}", {"status": "completed", "conclusion": "neutral"}
    wish: Json = {"name": "spot-runner", "head_sha": "a" * 40, "external_id": "k", **words}
    made = caller.ask("installation", f"post {repository}/check-runs", 201, wish)
    caller.ask("installation", f"patch {repository}/check-runs/{{check_run_id}}", 200, words, check_run_id=made["id"])
    shown = caller.ask("installation", f"get {repository}/check-runs/{{check_run_id}}", 200, check_run_id=made["id"])
    assert shown["external_id"] == "k"
    listed = caller.ask("installation", f"get {repository}/commits/{{ref}}/check-runs", 200, ref="a" * 40)
    assert [one["external_id"] for one in listed["check_runs"]] == ["k"]


def test_an_answer_that_lacks_a_field_is_caught_and_kept(spoiled: Place) -> None:
    job_id = spoiled.control.start_jobs(spoiled.repository, LABELS, STEPS)[0]
    path = f"/repos/{spoiled.repository}/actions/jobs/{job_id}"
    spoiled.control.plant("wrong", "GET", path)
    answer = spoiled.ask("GET", path, spoiled.token())
    assert answer.status_code == 500
    kept = [one for one in spoiled.control.violations() if one["where"] == f"GET {path}"]
    assert len(kept) == 1
    assert "is a required property" in kept[0]["what"]


def test_a_request_that_github_does_not_describe_is_caught_and_changes_nothing(spoiled: Place) -> None:
    path = f"/repos/{spoiled.repository}/actions/runners/generate-jitconfig"
    answer = spoiled.ask("POST", path, spoiled.token(), {"name": "spot-runner-a", "labels": LABELS})
    assert answer.status_code == 500
    assert any("runner_group_id" in one["what"] for one in spoiled.control.violations())
    assert spoiled.control.runners() == []


def test_a_path_that_is_not_in_the_cut_is_caught(spoiled: Place) -> None:
    assert spoiled.ask("GET", f"/repos/{spoiled.repository}/issues", spoiled.token()).status_code == 500
    assert any(one["where"].endswith("/issues") for one in spoiled.control.violations())


def test_a_token_expires(spoiled: Place) -> None:
    token = spoiled.token()
    path = f"/repos/{spoiled.repository}/actions/runners"
    assert spoiled.ask("GET", path, token).status_code == 200
    until(lambda: spoiled.ask("GET", path, token).status_code == 401, "the token expires")


def test_the_port_takes_another_token_when_its_own_expires(spoiled: Place) -> None:
    """PyGithub renews a token that is near its end; this one always is."""
    github = spoiled.port()
    for name in ("spot-runner-x", "spot-runner-y"):
        registration = github.register(spoiled.installation, spoiled.repository, name, LABELS)
        github.deregister(spoiled.installation, spoiled.repository, registration.github_id)


def foreign_jwt() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    now = int(time.time())
    return encode({"iat": now, "exp": now + 300, "iss": str(APP_ID)}, pem, "RS256")


def unsigned_jwt() -> str:
    now = int(time.time())
    return encode({"iat": now, "exp": now + 300, "iss": str(APP_ID)}, "", "none")


@pytest.mark.parametrize(
    "login",
    [
        pytest.param(lambda: app_jwt(exp=int(time.time()) - 60), id="expired"),
        pytest.param(lambda: app_jwt(exp=int(time.time()) + 3600), id="lives too long"),
        pytest.param(lambda: app_jwt(iss="8"), id="another App"),
        pytest.param(foreign_jwt, id="another key"),
        pytest.param(unsigned_jwt, id="not signed"),
        pytest.param(lambda: "nonsense", id="no JWT"),
    ],
)
def test_only_the_app_may_speak_as_the_app(place: Place, login: object) -> None:
    assert callable(login)
    assert place.ask("GET", "/app", login()).status_code == 401
    assert place.ask("GET", "/app", app_jwt()).status_code == 200


def test_a_token_opens_its_own_account_only(place: Place) -> None:
    other = place.control.install(f"{place.owner}-other")
    path = f"/repos/{place.repository}/actions/runners"
    assert place.ask("GET", path, place.token(other)).status_code == 404
    assert place.ask("GET", path, place.token()).status_code == 200
    assert place.ask("GET", path, app_jwt()).status_code == 401
    assert place.ask("GET", path, "ghs_nonsense").status_code == 401


def test_pygithub_finds_the_installation_of_a_repository(place: Place) -> None:
    login = Auth.AppAuth(APP_ID, app_key()[0])
    with GithubIntegration(auth=login, base_url=place.url, retry=None, seconds_between_requests=0) as github:
        assert github.get_repo_installation(place.owner, "widgets").id == place.installation


def test_an_organizations_runner_takes_the_job_of_any_of_its_repositories(place: Place) -> None:
    wish: Json = {"name": "spot-runner-o", "runner_group_id": 1, "labels": LABELS}
    answer = place.ask("POST", f"/orgs/{place.owner}/actions/runners/generate-jitconfig", place.token(), wish)
    job_id = place.control.start_jobs(f"{place.owner}/gadgets", LABELS, STEPS)[0]
    assert PlayedRunner(place, answer.json()["encoded_jit_config"]).taking() == job_id


def test_a_session_that_was_replaced_gets_no_job(place: Place) -> None:
    registration = place.port().register(place.installation, place.repository, "spot-runner-a", LABELS)
    first = PlayedRunner(place, registration.jit_config, "first").online()
    second = PlayedRunner(place, registration.jit_config, "second").online()
    job_id = place.control.start_jobs(place.repository, LABELS, STEPS)[0]
    assert first.ask("GET", "/sessions/first/offer?wait=0").status_code == 409
    assert second.taking() == job_id
    assert first.ask("PUT", "/sessions/first", {}).status_code == 409


def test_credentials_of_nobody_are_refused(place: Place) -> None:
    answer = place.ask("PUT", "/_runner/sessions/x", "nonsense", {})
    assert answer.status_code == 401
