"""From one address follow all addresses of a GitHub."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.domain.errors import BadInput
from workers.domain.github_site import GitHubSite, github_site

COM = ("https://github.com", "https://api.github.com")
RESIDENT = ("https://octocorp.ghe.com", "https://api.octocorp.ghe.com")
OWN = ("https://github.example.org", "https://github.example.org/api/v3")


@pytest.mark.parametrize(
    ("address", "web", "api"),
    [
        ("https://github.com", *COM),
        ("https://github.com/", *COM),
        ("https://www.github.com", *COM),
        ("https://api.github.com", *COM),
        ("HTTPS://GitHub.com", *COM),
        ("https://octocorp.ghe.com", *RESIDENT),
        ("https://api.octocorp.ghe.com/", *RESIDENT),
        ("https://github.example.org", *OWN),
        ("https://github.example.org/api/v3/", *OWN),
        (" https://github.example.org/api/v3", *OWN),
        ("https://git:8443", "https://git:8443", "https://git:8443/api/v3"),
        ("https://10.0.0.7", "https://10.0.0.7", "https://10.0.0.7/api/v3"),
        ("https://[fd00::7]:8443", "https://[fd00::7]:8443", "https://[fd00::7]:8443/api/v3"),
        ("https://notghe.com", "https://notghe.com", "https://notghe.com/api/v3"),
        ("http://127.0.0.1:8090", "http://127.0.0.1:8090", "http://127.0.0.1:8090"),
        ("http://127.0.0.1:8090/api/v3", "http://127.0.0.1:8090", "http://127.0.0.1:8090/api/v3"),
    ],
)
def test_each_kind_of_github_has_its_addresses(address: str, web: str, api: str) -> None:
    assert github_site(address) == GitHubSite(web, api)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "github.com",
        "ftp://github.com",
        "https://",
        "https://-/",
        "https://git hub",
        "https://github.com/octo",
        "https://github.com?x",
        "https://u:p@github.com",
        "http://github.com",
        "http://octocorp.ghe.com",
    ],
)
def test_what_is_no_github_is_refused_in_one_sentence(address: str) -> None:
    with pytest.raises(BadInput, match=r"^github_url: [^\n]+ https://[^\n]*$"):
        github_site(address)


@given(st.text(max_size=300))
def test_whatever_is_typed_is_taken_or_refused(address: str) -> None:
    try:
        site = github_site(address)
    except BadInput:
        return
    assert not site.web.endswith("/")
    assert not site.api.endswith("/")


def test_a_long_address_is_not_shown_as_a_whole() -> None:
    with pytest.raises(BadInput) as refused:
        github_site("x" * 100_000)
    assert len(str(refused.value)) < 400


def test_an_app_is_made_where_its_owner_is() -> None:
    site = github_site("https://octocorp.ghe.com")
    assert site.app_form(None) == "https://octocorp.ghe.com/settings/apps/new"
    assert site.app_form("octo-org") == "https://octocorp.ghe.com/organizations/octo-org/settings/apps/new"
