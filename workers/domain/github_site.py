"""Where one GitHub is: from one address follow all that we call or show (docs.github.com, "GitHub's REST API").

github.com              API  https://api.github.com
SUBDOMAIN.ghe.com       API  https://api.SUBDOMAIN.ghe.com    GitHub Enterprise Cloud with data residency
any other HTTPS host    API  https://HOST/api/v3              GitHub Enterprise Server
any plain HTTP address  API  the address itself               a simulator, which has no TLS and all in one place
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from workers.domain.errors import BadInput

_ADDRESS: Final = re.compile(
    r"(?P<scheme>https?)://(?P<host>[a-z0-9]([a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?P<port>:[0-9]{1,5})?"
    r"(?P<path>/api/v3)?/?",
    re.IGNORECASE,
)
_PUBLIC: Final = frozenset({"github.com", "www.github.com", "api.github.com"})
_RESIDENT: Final = re.compile(r"(api\.)?(?P<subdomain>[a-z0-9-]+)\.ghe\.com")
SHOWN_MAX: Final = 100


@dataclass(frozen=True)
class GitHubSite:
    """One GitHub; neither address ends in a slash."""

    web: str
    """What people open."""
    api: str
    """The REST API's root."""

    def app_form(self, organization: str | None) -> str:
        """Return where a manifest is posted: the App then belongs to the organization, or to whoever posts it."""
        owner = f"organizations/{organization}/" if organization else ""
        return f"{self.web}/{owner}settings/apps/new"


def github_site(address: str) -> GitHubSite:
    """Return the GitHub at this address, be it the one that people open or the API's. Raises `BadInput`."""
    found = _ADDRESS.fullmatch(address.strip())
    if found is None:
        raise BadInput(
            f"github_url: {address[:SHOWN_MAX]!r} is no address of a GitHub; write https://github.com, "
            "https://SUBDOMAIN.ghe.com or https:// and the host of your GitHub Enterprise Server"
        )
    host, port, path = found["host"].lower(), found["port"] or "", found["path"] or ""
    if found["scheme"].lower() == "http":
        return _in_one_place(host, port, path)
    if host in _PUBLIC:
        return GitHubSite("https://github.com", "https://api.github.com")
    if resident := _RESIDENT.fullmatch(host):
        return GitHubSite(f"https://{resident['subdomain']}.ghe.com", f"https://api.{resident['subdomain']}.ghe.com")
    return GitHubSite(f"https://{host}{port}", f"https://{host}{port}/api/v3")


def _in_one_place(host: str, port: str, path: str) -> GitHubSite:
    if host in _PUBLIC or host.endswith(".ghe.com"):
        raise BadInput(f"github_url: {host} is asked by HTTPS only; write https:// before it")
    return GitHubSite(f"http://{host}{port}", f"http://{host}{port}{path}")
