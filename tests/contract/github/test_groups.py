"""Runners of a whole organization, and the groups that say which of its repositories may use them."""

from __future__ import annotations

import pytest

from tests.contract.github.places import Place, PlayedRunner
from tests.contract.github.sides import Side
from workers.domain.errors import Refused
from workers.domain.listed import RunnerListed, Scope
from workers.domain.runner import DEFAULT_GROUP

LABELS = ("self-hosted", "spot-runner")


def owner_of(side: Side) -> str:
    return side.repository.partition("/")[0]


def test_a_runner_of_an_organization_takes_a_job_of_any_repository_that_its_group_admits(side: Side) -> None:
    owner = owner_of(side)
    inside, outside = f"{owner}/inside", f"{owner}/outside"
    group = side.make_group("narrow", [inside])
    side.queue_job(LABELS, repository=outside)
    job_id, _ = side.queue_job(LABELS, repository=inside)
    registration = side.port.register(side.installation, owner, "spot-runner-o", LABELS, group)
    assert side.take_job(registration) == job_id
    seen = side.port.job(side.installation, inside, job_id)
    assert seen is not None
    assert (seen.runner_id, seen.runner_name) == (registration.github_id, "spot-runner-o")


def test_the_default_group_admits_everybody(side: Side) -> None:
    assert side.port.group_of(side.installation, side.repository, None) == DEFAULT_GROUP
    registration = side.port.register(side.installation, owner_of(side), "spot-runner-o", LABELS)
    job_id, _ = side.queue_job(LABELS, repository=f"{owner_of(side)}/any")
    assert side.take_job(registration) == job_id


def test_a_group_is_found_by_its_name_for_the_repositories_that_it_admits(side: Side) -> None:
    group = side.make_group("builders", [side.repository])
    assert side.port.group_of(side.installation, side.repository, "builders") == group
    with pytest.raises(Refused, match="does not admit"):
        side.port.group_of(side.installation, f"{owner_of(side)}/other", "builders")
    with pytest.raises(Refused, match="absent"):
        side.port.group_of(side.installation, side.repository, "absent")


def test_a_registration_lies_where_it_was_made_and_is_found_and_removed_only_there(side: Side) -> None:
    owner, name = owner_of(side), "spot-runner-o"
    made = side.port.register(side.installation, owner, name, LABELS)
    listed = [RunnerListed(made.github_id, name, is_busy=False)]
    whole, one = (Scope(side.installation, place) for place in (owner, side.repository))
    assert side.lists.registrations(whole) == listed
    assert side.lists.registrations(one) == []
    assert side.port.number_of(side.installation, owner, name) == made.github_id
    assert side.port.number_of(side.installation, side.repository, name) is None
    side.port.deregister(side.installation, side.repository, made.github_id)
    assert side.lists.registrations(whole) == listed
    side.port.deregister(side.installation, owner, made.github_id)
    assert side.lists.registrations(whole) == []


def test_a_group_that_is_gone_is_refused(side: Side) -> None:
    with pytest.raises(Refused):
        side.port.register(side.installation, owner_of(side), "spot-runner-o", LABELS, 999_999)


def test_what_is_wrong_with_a_group_is_one_sentence_with_place_problem_and_remedy(place: Place) -> None:
    place.control.make_group(place.owner, "narrow", [f"{place.owner}/inside"])
    port, outside = place.port(), f"{place.owner}/outside"
    with pytest.raises(Refused) as absent:
        port.group_of(place.installation, outside, "absent")
    assert str(absent.value) == (
        f"the runner group 'absent' is none of {place.owner}'s; make it in the organization's settings (Actions, "
        "Runner groups), or name another one in runner_group"
    )
    with pytest.raises(Refused) as narrow:
        port.group_of(place.installation, outside, "Narrow")
    assert str(narrow.value) == (
        f"the runner group 'Narrow' of {place.owner} does not admit {outside}; let an owner give the repository access "
        "to it, and allow public repositories there if it is one, or name another one in runner_group"
    )


def test_an_app_that_may_not_see_to_an_organizations_runners_is_told_what_an_owner_must_accept(place: Place) -> None:
    owner = f"{place.owner}-strict"
    installation = place.control.install(owner, {"administration": "write", "actions": "write"})
    with pytest.raises(Refused, match=r"not accessible.*let an owner accept organization_self_hosted_runners: write"):
        place.port().group_of(installation, f"{owner}/widgets", None)
    port = place.port()
    assert port.register(installation, f"{owner}/widgets", "spot-runner-a", LABELS).github_id
    with pytest.raises(Refused):
        port.register(installation, owner, "spot-runner-a", LABELS)


def test_groups_beyond_the_first_page_are_found(place: Place) -> None:
    for number in range(100):
        place.control.make_group(place.owner, f"many-{number}", [place.repository])
    last = place.control.make_group(place.owner, "last", [place.repository])
    assert place.port().group_of(place.installation, place.repository, "last") == last


def test_a_runner_of_a_repository_can_be_in_no_group_of_its_organization(place: Place) -> None:
    group = place.control.make_group(place.owner, "builders")
    with pytest.raises(Refused):
        place.port().register(place.installation, place.repository, "spot-runner-a", LABELS, group)


def test_a_job_says_in_which_group_its_runner_is(place: Place) -> None:
    group = place.control.make_group(place.owner, "builders", [place.repository])
    (job_id,) = place.control.start_jobs(place.repository, LABELS, [("one", "true")])
    made = place.port().register(place.installation, place.owner, "spot-runner-o", LABELS, group)
    assert PlayedRunner(place, made.jit_config).taking() == job_id
    answer = place.ask("GET", f"/repos/{place.repository}/actions/jobs/{job_id}", place.token())
    assert (answer.json()["runner_group_id"], answer.json()["runner_group_name"]) == (group, "builders")
