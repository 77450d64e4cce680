"""How PyGithub's and the network's troubles reach us: as the error that says what to do."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.contract.github.places import APP_ID, Place, PlayedRunner, app_key, free_port
from workers.domain.errors import BadInput, Refused, Throttled, Unreachable
from workers.domain.names import JobId
from workers.github import AppGitHub


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("unavailable", Unreachable),
        ("lost", Unreachable),
        ("throttled", Throttled),
        ("rate_limited", Throttled),
        ("secondary", Throttled),
        ("forbidden", Refused),
    ],
)
def test_each_answer_of_githubs_bad_days_has_its_error(place: Place, fault: str, error: type[Exception]) -> None:
    place.control.plant(fault, "GET", f"/repos/{place.repository}/actions/jobs/")
    with pytest.raises(error) as caught:
        place.port().job(place.installation, place.repository, JobId(4))
    assert f"job 4 of {place.repository}" in str(caught.value)
    assert caught.value.__cause__ is not None


def test_a_registration_whose_answer_was_lost_is_done_again_under_the_same_name(place: Place) -> None:
    github = place.port()
    place.control.plant("lost", "POST", f"/repos/{place.repository}/actions/runners/generate-jitconfig")
    with pytest.raises(Unreachable):
        github.register(place.installation, place.repository, "spot-runner-a", ["spot-runner"])
    registration = github.register(place.installation, place.repository, "spot-runner-a", ["spot-runner"])
    live = [one for one in place.control.runners() if one["scope"] == place.repository and not one["gone_because"]]
    assert [one["id"] for one in live] == [registration.github_id]


def test_nobody_listening_is_unreachable() -> None:
    github = AppGitHub(f"http://127.0.0.1:{free_port()}", APP_ID, app_key()[0])
    with pytest.raises(Unreachable):
        github.job(1, "octo-org/widgets", JobId(4))


def test_a_connection_that_is_cut_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def cut() -> None:
            server.accept()[0].close()

        threading.Thread(target=cut, daemon=True).start()
        github = AppGitHub(f"http://127.0.0.1:{server.getsockname()[1]}", APP_ID, app_key()[0])
        with pytest.raises(Unreachable):
            github.job(1, "octo-org/widgets", JobId(4))


def test_a_label_that_github_does_not_allow_is_refused(place: Place) -> None:
    with pytest.raises(Refused, match="label"):
        place.port().register(place.installation, place.repository, "spot-runner-a", ["x" * 257])


def test_an_installation_that_is_gone_is_refused(place: Place) -> None:
    with pytest.raises(Refused):
        place.port().register(4, place.repository, "spot-runner-a", ["spot-runner"])


def test_a_key_that_is_not_the_apps_is_refused(place: Place) -> None:
    github = AppGitHub(place.url, APP_ID + 1, app_key()[0])
    with pytest.raises(Refused):
        github.job(place.installation, place.repository, JobId(4))


def elliptic_key() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return key.private_bytes(*form).decode()


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(lambda: "", id="empty"),
        pytest.param(lambda: "nonsense", id="no PEM"),
        pytest.param(lambda: app_key()[1], id="the public half"),
        pytest.param(elliptic_key, id="not RSA"),
    ],
)
def test_a_key_that_cannot_sign_is_refused_before_anything_is_asked(key: Callable[[], str]) -> None:
    with pytest.raises(BadInput, match="private key is of no use"):
        AppGitHub("http://127.0.0.1:1", APP_ID, key())


def test_one_token_serves_all_calls_of_a_thread(place: Place) -> None:
    """If it were asked for anew, the planted fault would strike."""
    github = place.port()
    assert github.job(place.installation, place.repository, JobId(4)) is None
    place.control.plant("unavailable", "POST", f"/app/installations/{place.installation}/access_tokens")
    assert github.job(place.installation, place.repository, JobId(4)) is None
    with pytest.raises(Unreachable):
        place.port().job(place.installation, place.repository, JobId(4))


def test_sixteen_threads_may_use_one_port_at_once(place: Place) -> None:
    github = place.port()
    found: list[int] = []
    names = [f"spot-runner-{number}" for number in range(16)]

    def register(name: str) -> None:
        found.append(github.register(place.installation, place.repository, name, ["spot-runner"]).github_id)

    threads = [threading.Thread(target=register, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 16


def test_a_rerun_that_github_forbids_for_lack_of_a_permission_is_not_tried_for_ever(place: Place) -> None:
    job_id = place.control.start_jobs(place.repository, ["spot-runner"], [("one", "true")])[0]
    run_id = place.control.job(job_id)["run_id"]
    place.control.plant("forbidden", "POST", f"/actions/runs/{run_id}/rerun-failed-jobs")
    with pytest.raises(Refused, match="not accessible"):
        place.port().rerun_failed(place.installation, place.repository, run_id)


def test_the_rerun_of_a_run_that_never_was_is_refused(place: Place) -> None:
    with pytest.raises(Refused):
        place.port().rerun_failed(place.installation, place.repository, 4)


def test_a_leftover_that_went_away_by_itself_does_not_hinder(place: Place) -> None:
    """Between the conflict and the removal its job may have ended, and with it the registration."""
    github = place.port()
    registration = github.register(place.installation, place.repository, "spot-runner-a", ["spot-runner"])
    place.control.start_jobs(place.repository, ["spot-runner"], [("one", "true")])
    runner = PlayedRunner(place, registration.jit_config)
    runner.finish(runner.taking(), "success")
    github.deregister(place.installation, place.repository, registration.github_id)
