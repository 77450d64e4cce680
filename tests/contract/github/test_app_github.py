"""How PyGithub's and the network's troubles reach us: as the error that says what to do."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.contract.github.places import APP_ID, Place, PlayedRunner, app_key, free_port
from workers.domain.errors import BadInput, NotThere, Refused, Throttled, Unreachable, Unrecognized, Unregistrable
from workers.domain.listed import Scope
from workers.domain.names import JobId
from workers.domain.pace import Permit, Urgency, Wish
from workers.github.app import AppGitHub
from workers.github.pace import NoPace


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
    github = AppGitHub(f"http://127.0.0.1:{free_port()}", {APP_ID: app_key()[0]})
    with pytest.raises(Unreachable):
        github.job(1, "octo-org/widgets", JobId(4))


def test_a_connection_that_is_cut_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def cut() -> None:
            server.accept()[0].close()

        threading.Thread(target=cut, daemon=True).start()
        github = AppGitHub(f"http://127.0.0.1:{server.getsockname()[1]}", {APP_ID: app_key()[0]})
        with pytest.raises(Unreachable):
            github.job(1, "octo-org/widgets", JobId(4))


def test_labels_that_github_does_not_accept_are_one_sentence(place: Place) -> None:
    with pytest.raises(Unregistrable) as caught:
        place.port().register(place.installation, place.repository, "spot-runner-a", ["spot-runner", "x" * 257])
    assert str(caught.value) == (
        f"registering spot-runner-a for {place.repository}: GitHub does not accept the labels spot-runner, {'x' * 60} "
        "(Invalid label: must be between 1 and 256 characters); write others after runs-on, 100 at most and each of "
        "256 characters at most"
    )


def test_a_runner_group_that_is_gone_is_one_sentence(place: Place) -> None:
    with pytest.raises(Unregistrable, match=r"no runner group with the number 4711.*another one in the pool's runner_"):
        place.port().register(place.installation, place.owner, "spot-runner-a", ["spot-runner"], 4711)


def test_a_taken_name_that_is_not_ours_is_left_alone(place: Place) -> None:
    foreign = place.port().register(place.installation, place.repository, "spot-runner-ffffff-a", ["spot-runner"])
    ours = AppGitHub(place.url, {APP_ID: app_key()[0]}, mark="spot-runner-3fa9c2-")
    with pytest.raises(
        Refused, match=r"spot-runner-ffffff-a for .* not this deployment's, whose names begin with spot"
    ):
        ours.register(place.installation, place.repository, "spot-runner-ffffff-a", ["spot-runner"])
    assert ours.number_of(place.installation, place.repository, "spot-runner-ffffff-a") == foreign.github_id
    first = ours.register(place.installation, place.repository, "spot-runner-3fa9c2-a", ["spot-runner"])
    again = ours.register(place.installation, place.repository, "spot-runner-3fa9c2-a", ["spot-runner"])
    assert ours.number_of(place.installation, place.repository, "spot-runner-3fa9c2-a") == again.github_id
    assert first.github_id != again.github_id


class Overheard(NoPace):
    """Grants everything and notes how urgent it was."""

    def __init__(self) -> None:
        self.heard: list[Urgency] = []

    def take(self, wish: Wish) -> Permit:
        self.heard.append(wish.urgency)
        return super().take(wish)


def test_whatever_a_job_waits_for_is_urgent_and_what_is_only_looked_after_is_not(place: Place) -> None:
    pace, where = Overheard(), (place.installation, place.repository)
    github = AppGitHub(place.url, {APP_ID: app_key()[0]}, pace)
    (job_id,) = place.control.start_jobs(place.repository, ["spot-runner"], [("one", "true")])
    github.run(*where, place.control.job(job_id)["run_id"])
    github.group_of(*where, None)
    made = github.register(*where, "spot-runner-a", ["spot-runner"])
    github.number_of(*where, "spot-runner-a")
    github.deregister(*where, made.github_id)
    assert set(pace.heard) == {Urgency.RUNNER}
    pace.heard.clear()
    github.job(*where, JobId(job_id))
    github.lists.registrations(Scope(*where))
    assert pace.heard == [Urgency.POLL, Urgency.SWEEP]


def test_an_installation_that_is_gone_is_refused(place: Place) -> None:
    with pytest.raises(Refused):
        place.port().register(4, place.repository, "spot-runner-a", ["spot-runner"])


def test_a_key_that_is_not_the_apps_is_refused(place: Place) -> None:
    github = AppGitHub(place.url, {APP_ID + 1: app_key()[0]})
    with pytest.raises(Unrecognized):
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
        AppGitHub("http://127.0.0.1:1", {APP_ID: key()})


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
    with pytest.raises(NotThere):
        place.port().rerun_failed(place.installation, place.repository, 4)


def test_a_leftover_that_went_away_by_itself_does_not_hinder(place: Place) -> None:
    """Between the conflict and the removal its job may have ended, and with it the registration."""
    github = place.port()
    registration = github.register(place.installation, place.repository, "spot-runner-a", ["spot-runner"])
    place.control.start_jobs(place.repository, ["spot-runner"], [("one", "true")])
    runner = PlayedRunner(place, registration.jit_config)
    runner.finish(runner.taking(), "success")
    github.deregister(place.installation, place.repository, registration.github_id)
