"""Deliveries are lost, doubled, late and broken in the shares that a rehearsal asks for; what time takes away."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator
from itertools import count
from time import time
from typing import Any

import jwt
import pytest

from tests.contract.github.places import SECRET, MadeApp, Place, PlayedRunner, Received, app_jwt, until
from workers.rehearsal.github.contract import Broken, Sampling, check_delivery, published
from workers.rehearsal.github.fates import Damage, Dice, Shares, damaged

LABELS = ["self-hosted", "spot-runner"]
STEPS = [("one", "true")]


@pytest.fixture
def unlucky(place: Place) -> Iterator[Place]:
    yield place
    place.control.set_shares()


def start(place: Place, count: int) -> list[int]:
    return place.control.start_jobs(place.repository, LABELS, STEPS, count)


def delivered(place: Place, ids: list[int]) -> list[Received]:
    """Return what came of these jobs, once nothing is on its way any more."""
    until(lambda: place.control.standing()["undelivered"] == 0, "everything has left")
    until(lambda: all(one["delivered_at"] for one in place.control.deliveries()), "everything was tried")
    wanted = {str(one).encode() for one in ids}
    return [one for one in list(place.receiver.received) if any(name in one.body for name in wanted)]


class TestShares:
    def test_a_lost_delivery_is_never_sent_nor_listed(self, unlucky: Place) -> None:
        unlucky.control.set_shares(lost=0.5, seed=1)
        ids = start(unlucky, 40)
        came = {one.payload["workflow_job"]["id"] for one in delivered(unlucky, ids)}
        assert 0 < len(came) < 40
        assert {one["job_id"] for one in unlucky.control.deliveries()} & set(ids) == came
        assert unlucky.control.shares()["lost"] == 40 - len(came)

    def test_a_doubled_delivery_comes_twice_under_one_guid(self, unlucky: Place) -> None:
        unlucky.control.set_shares(doubled=1, reordered_s=0.1)
        ids = start(unlucky, 5)
        guids = [one.headers["x-github-delivery"] for one in delivered(unlucky, ids)]
        assert (len(guids), len(set(guids))) == (10, 5)

    def test_a_reordered_delivery_is_overtaken(self, unlucky: Place) -> None:
        unlucky.control.set_shares(reordered=0.5, reordered_s=0.5, seed=2)
        ids = start(unlucky, 20)
        came = [one.payload["workflow_job"]["id"] for one in delivered(unlucky, ids)]
        assert sorted(came) == ids
        assert came != ids

    def test_a_delayed_delivery_comes_after_its_delay(self, unlucky: Place) -> None:
        unlucky.control.set_shares(delayed=1, delayed_s=0.5)
        (late,) = start(unlucky, 1)
        unlucky.control.set_shares()
        (prompt,) = start(unlucky, 1)
        came = [one.payload["workflow_job"]["id"] for one in delivered(unlucky, [late, prompt])]
        assert came == [prompt, late]

    def test_a_malformed_delivery_is_whole_when_it_is_sent_again(self, unlucky: Place) -> None:
        unlucky.control.set_shares(malformed=1)
        unlucky.receiver.statuses.put(400)
        before = len(unlucky.receiver.received)
        (job_id,) = start(unlucky, 1)
        until(lambda: len(unlucky.receiver.received) > before, "it came")
        broken = unlucky.receiver.received[before]
        with pytest.raises((Broken, ValueError, AttributeError, AssertionError)):
            check_whole(broken)
        failed = until(lambda: [one for one in unlucky.control.deliveries() if one["job_id"] == job_id], "listed")[0]
        path = f"/app/hook/deliveries/{failed['id']}/attempts"
        assert unlucky.ask("POST", path, app_jwt()).status_code == 202
        until(lambda: len(unlucky.receiver.received) > before + 1, "it came again")
        again = unlucky.receiver.received[before + 1]
        check_whole(again)
        assert again.headers["x-github-delivery"] == broken.headers["x-github-delivery"]

    def test_shares_that_are_none_are_refused(self, place: Place) -> None:
        answer = place.http.put(f"{place.url}/_simulator/shares", json={"eaten": 1})
        assert (answer.status_code, "eaten" in answer.text) == (400, True)


def check_whole(one: Received) -> None:
    signature = hmac.new(SECRET.encode(), one.body, hashlib.sha256).hexdigest()
    assert one.headers["x-hub-signature-256"] == f"sha256={signature}"
    check_delivery("workflow_job", json.loads(one.body))


OF_APPS = ("workflow_job", "installation", "installation_repositories", "ping")


class TestOddDeliveries:
    @pytest.mark.parametrize("event", OF_APPS)
    def test_whatever_it_is_about_is_there_and_is_not_what_the_schema_says(self, event: str) -> None:
        whole = published("deliveries")[event][0]
        odd = json.loads(damaged(json.dumps(whole).encode(), Damage.ODD))
        assert odd.keys() == whole.keys()
        with pytest.raises(Broken, match=r"/id: \['[0-9]+'\] is not of type"):
            check_delivery(event, odd)

    @pytest.mark.parametrize("change", ["suspend", "removed"])
    def test_one_about_an_installation_leaves_and_so_do_those_behind_it(self, unlucky: Place, change: str) -> None:
        unlucky.control.set_shares(malformed=1, seed=seed_of(Damage.ODD))
        before = len(unlucky.receiver.received)
        unlucky.control.change_installation(unlucky.owner, change, [f"{unlucky.owner}/gadgets"])
        until(lambda: len(unlucky.receiver.received) > before, "it came")
        assert unlucky.receiver.received[before].payload["installation"]["id"] == [str(unlucky.installation)]
        unlucky.control.set_shares()
        unlucky.control.change_installation(unlucky.owner, "unsuspend")
        (job_id,) = start(unlucky, 1)
        until(lambda: unlucky.receiver.of_job(job_id), "the next one came")


def seed_of(damage: Damage) -> int:
    """Return a seed whose first delivery meets this damage, if all meet some."""
    return next(seed for seed in count() if Dice(Shares(malformed=1, seed=seed)).fate().damage is damage)


def test_a_delivery_that_cannot_even_be_tried_is_listed_as_failed_and_holds_up_no_other(place: Place) -> None:
    """Its App's address is one that no client understands."""
    app = place.another_app(f"Odd of {place.owner}", "http://[::1/")
    place.install(app, place.owner)
    (job_id,) = start(place, 1)
    until(lambda: place.receiver.of_job(job_id), "the other App hears of it")
    tries = until(lambda: [one for one in place.control.deliveries() if one["app_id"] == app.id], "it is known")
    assert [one["job_id"] for one in tries] == [job_id]
    (failed,) = until(lambda: listed(place, app), "it is listed")
    assert (failed["status"], failed["status_code"]) == ("failed", 0)
    (next_id,) = start(place, 1)
    until(lambda: place.receiver.of_job(next_id), "the next one came")


def listed(place: Place, app: MadeApp) -> list[dict[str, Any]]:
    login = jwt.encode({"iat": int(time()) - 60, "exp": int(time()) + 300, "iss": str(app.id)}, app.key, "RS256")
    found: list[dict[str, Any]] = place.ask("GET", "/app/hook/deliveries", login).json()
    return found


class TestDice:
    def test_shares_are_kept_and_the_same_seed_throws_alike(self) -> None:
        shares = Shares(lost=0.05, doubled=0.1, reordered=0.1, malformed=0.02, seed=7)
        dice, again = Dice(shares), Dice(shares)
        fates = [dice.fate() for _ in range(20_000)]
        assert fates == [again.fate() for _ in range(20_000)]
        drawn, sent = dice.drawn(), 20_000 - dice.drawn()["lost"]
        assert drawn["lost"] / 20_000 == pytest.approx(0.05, abs=0.005)
        assert drawn["doubled"] / sent == pytest.approx(0.1, abs=0.01)
        assert drawn["reordered"] / sent == pytest.approx(0.1, abs=0.01)
        assert drawn["malformed"] / sent == pytest.approx(0.02, abs=0.004)
        assert {fate.damage for fate in fates} == {None, *Damage}

    def test_another_seed_throws_otherwise(self) -> None:
        one, other = Dice(Shares(lost=0.5, seed=1)), Dice(Shares(lost=0.5, seed=2))
        assert [one.fate() for _ in range(50)] != [other.fate() for _ in range(50)]


class TestSampling:
    def test_the_first_of_each_kind_is_checked_and_then_one_in_so_many(self) -> None:
        sampling = Sampling(3)
        assert [sampling.wants("a") for _ in range(7)] == [True, False, False, True, False, False, True]
        assert sampling.wants("b")

    def test_everything_is_checked_by_default(self) -> None:
        assert all(Sampling().wants("a") for _ in range(10))


class TestWhatTimeTakesAway:
    def test_tokens_expire_when_told(self, place: Place) -> None:
        token, path = place.token(), f"/repos/{place.repository}/actions/runners"
        assert place.ask("GET", path, token).status_code == 200
        assert place.control.expire_tokens() >= 1
        assert place.ask("GET", path, token).status_code == 401
        assert place.ask("GET", path, place.token()).status_code == 200

    def test_a_lock_that_expires_when_told_fails_its_job(self, place: Place) -> None:
        (job_id,) = start(place, 1)
        runner = registered(place, "spot-runner-a")
        runner.taking()
        place.control.expire_lock(job_id)
        assert place.control.job(job_id)["conclusion"] == "failure"
        assert runner.finish(job_id, "success").status_code == 410
        until(lambda: place.receiver.actions_of(job_id) == ["queued", "in_progress", "completed"], "its end is told")

    def test_an_idle_runner_is_removed_when_told_and_a_busy_one_is_not(self, place: Place) -> None:
        start(place, 1)
        busy, idle = registered(place, "spot-runner-busy"), registered(place, "spot-runner-idle")
        busy.taking()
        idle.online()
        assert "spot-runner-idle" in place.control.remove_idle()
        assert idle.ask("GET", f"/sessions/{idle.session}/offer?wait=0").status_code == 410
        listed = place.ask("GET", f"/repos/{place.repository}/actions/runners", place.token()).json()["runners"]
        assert [one["name"] for one in listed] == ["spot-runner-busy"]


def registered(place: Place, name: str) -> PlayedRunner:
    jit_config = place.port().register(place.installation, place.repository, name, LABELS).jit_config
    return PlayedRunner(place, jit_config, name)


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("forbidden", 403),
        ("not_found", 404),
        ("conflict", 409),
        ("unprocessable", 422),
        ("throttled", 429),
        ("secondary", 403),
        ("broken", 500),
        ("lost", 502),
        ("unavailable", 503),
        ("late", 504),
    ],
)
def test_every_bad_answer_of_githubs_keeps_the_contract(place: Place, kind: str, status: int) -> None:
    path = f"/repos/{place.repository}/actions/runners/generate-jitconfig"
    wish = {"name": "spot-runner-a", "runner_group_id": 1, "labels": LABELS}
    place.control.plant(kind, "POST", path)
    answer = place.ask("POST", path, place.token(), wish)
    assert (answer.status_code, "message" in answer.json()) == (status, True)
    made = [one["name"] for one in place.control.runners() if one["scope"] == place.repository]
    assert made == (["spot-runner-a"] if kind in {"lost", "late"} else []), "whether it was carried out"
    assert place.ask("POST", path, place.token(), wish | {"name": "spot-runner-b"}).status_code == 201


def test_a_fault_may_strike_a_share_of_the_calls(place: Place) -> None:
    path, token = f"/repos/{place.repository}/actions/runners", place.token()
    place.control.plant("unavailable", "GET", path, times=10, share=0.3)
    statuses = [place.ask("GET", path, token).status_code for _ in range(60)]
    assert statuses.count(503) == 10
    assert statuses[:10].count(503) < 10
