"""What our App must be allowed, and what is said of one that lacks something."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from workers.domain.errors import BadInput
from workers.domain.github_app import (
    EVENTS,
    PERMISSIONS,
    AppSeen,
    GitHubApp,
    InstallationSeen,
    Wish,
    lacks,
    manifest,
    wish_of,
)
from workers.domain.installation import EVERYBODY, Guests
from workers.rehearsal.github.contract import published

URL = "https://runners.example.org"
WEB = "https://github.com"
INSTALLED = InstallationSeen(
    "octo-org", is_organization=True, permissions=PERMISSIONS, events=EVENTS, is_suspended=False, page=f"{WEB}/i/1"
)
WELL = AppSeen(
    name="Octo Spot",
    page=f"{WEB}/apps/octo-spot",
    owner="octo-org",
    is_of_organization=True,
    permissions=PERMISSIONS,
    events=EVENTS,
    hook_url=f"{URL}/github",
    hook_content_type="json",
    is_hook_insecure=False,
    installations=(INSTALLED,),
)
SETTINGS = f"{WEB}/organizations/octo-org/settings/apps/octo-spot"


def said(app: AppSeen) -> tuple[str, ...]:
    return lacks(app, f"{URL}/github", WEB)


def without(name: str) -> dict[str, str]:
    return {key: level for key, level in PERMISSIONS.items() if key != name}


def test_the_manifest_asks_for_the_permissions_that_are_written_down_and_nothing_more() -> None:
    """Against a copy, so that one more is a decision of two places."""
    asked = manifest(Wish("Octo Spot", None, is_public=False), URL)
    assert asked["default_permissions"] == {
        "actions": "write",
        "administration": "write",
        "checks": "write",
        "deployments": "read",
        "metadata": "read",
        "organization_self_hosted_runners": "write",
    }
    assert asked["default_events"] == ["workflow_job"]
    assert asked["hook_attributes"] == {"url": f"{URL}/github", "active": True}
    assert asked["public"] is False
    assert (asked["redirect_url"], asked["setup_url"]) == (f"{URL}/setup/created", f"{URL}/setup/check")
    json.dumps(asked)


@pytest.mark.parametrize("name", PERMISSIONS)
def test_github_knows_each_permission_at_its_level(name: str) -> None:
    known = published("description")["components"]["schemas"]["app-permissions"]["properties"]
    assert PERMISSIONS[name] in known[name]["enum"]


def test_an_app_that_has_all_lacks_nothing() -> None:
    assert said(WELL) == ()


@pytest.mark.parametrize("name", PERMISSIONS)
def test_each_permission_that_is_missing_is_one_sentence_with_what_to_do(name: str) -> None:
    (sentence,) = said(replace(WELL, permissions=without(name)))
    assert sentence == (f"The App lacks the permission {name}: {PERMISSIONS[name]}; give it at {SETTINGS}/permissions.")


@pytest.mark.parametrize(
    ("app", "words", "place"),
    [
        (replace(WELL, permissions={**PERMISSIONS, "checks": "read"}), "checks: write", f"{SETTINGS}/permissions"),
        (replace(WELL, permissions={**PERMISSIONS, "contents": "read"}), "contents: read", f"{SETTINGS}/permissions"),
        (replace(WELL, permissions={**PERMISSIONS, "actions": "admin"}), "actions: admin", f"{SETTINGS}/permissions"),
        (replace(WELL, events=()), "workflow_job", f"{SETTINGS}/permissions"),
        (replace(WELL, hook_url="https://old.example.org/github"), "go to https://old.example.org/github", SETTINGS),
        (replace(WELL, hook_url=None), "go nowhere", SETTINGS),
        (replace(WELL, hook_content_type="form"), "application/json", SETTINGS),
        (replace(WELL, is_hook_insecure=True), "does not verify the certificate", SETTINGS),
        (replace(WELL, installations=()), "installed nowhere", f"{WEB}/apps/octo-spot/installations/new"),
    ],
)
def test_each_fault_of_the_app_is_one_sentence_with_the_page_to_open(app: AppSeen, words: str, place: str) -> None:
    (sentence,) = said(app)
    assert words in sentence
    assert sentence.endswith(f"{place}.")


@pytest.mark.parametrize(
    ("installation", "words"),
    [
        (replace(INSTALLED, is_suspended=True), "suspended"),
        (replace(INSTALLED, permissions=without("checks")), "has not accepted checks: write;"),
        (replace(INSTALLED, events=()), "does not send workflow_job"),
    ],
)
def test_each_fault_of_an_installation_names_its_account_and_page(installation: InstallationSeen, words: str) -> None:
    (sentence,) = said(replace(WELL, installations=(INSTALLED, replace(installation, account="hexa", page="P"))))
    assert words in sentence
    assert "hexa" in sentence
    assert sentence.endswith(" P.")


@pytest.mark.parametrize(
    ("is_public", "served", "is_said"),
    [
        (True, EVERYBODY, True),
        (True, Guests(denied=frozenset({"octo"})), True),
        (True, Guests(allowed=frozenset({"octo-org"})), False),
        (False, EVERYBODY, False),
        (None, EVERYBODY, False),
    ],
)
def test_an_app_that_anybody_may_install_needs_a_list_of_those_who_are_served(
    is_public: bool | None,  # noqa: FBT001 - a case of the table
    served: Guests,
    is_said: bool,  # noqa: FBT001
) -> None:
    told = lacks(replace(WELL, is_public=is_public), f"{URL}/github", WEB, served)
    assert len(told) == is_said
    assert all("SPOT_RUNNER_INSTALLATIONS_ALLOWED" in one and one.endswith(f"{SETTINGS}/advanced.") for one in told)


def test_a_persons_account_is_not_asked_for_what_only_organizations_have() -> None:
    person = replace(INSTALLED, is_organization=False, permissions=without("organization_self_hosted_runners"))
    assert said(replace(WELL, installations=(person,))) == ()
    assert len(said(replace(WELL, installations=(replace(person, is_organization=True),)))) == 1


def test_the_app_of_a_person_has_its_settings_elsewhere() -> None:
    (sentence,) = said(replace(WELL, is_of_organization=False, events=()))
    assert f" {WEB}/settings/apps/octo-spot/permissions." in sentence


def test_what_was_typed_becomes_a_wish() -> None:
    assert wish_of(" Octo Spot ", " octo-org ", is_public=True) == Wish("Octo Spot", "octo-org", is_public=True)
    assert wish_of("Octo Spot", "", is_public=False).organization is None


@pytest.mark.parametrize(
    ("name", "organization", "place"),
    [
        ("", "", "name"),
        ("x" * 35, "", "name"),
        ("a\nb", "", "name"),
        ("a", "a/b", "organization"),
        ("a", "-a", "organization"),
        ("a", "a--b", "organization"),
        ("a", "x" * 40, "organization"),
    ],
)
def test_what_github_would_not_take_is_refused_here(name: str, organization: str, place: str) -> None:
    with pytest.raises(BadInput, match=f"^{place}: "):
        wish_of(name, organization, is_public=False)


def test_no_secret_is_shown_with_the_app() -> None:
    shown = repr(GitHubApp(7, "-----BEGIN", ("hush",)))
    assert "BEGIN" not in shown
    assert "hush" not in shown
