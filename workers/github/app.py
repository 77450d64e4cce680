"""GitHub for our Apps: every subject that they may ask about."""

from __future__ import annotations

from collections.abc import Mapping

from workers.github.calls import Calls
from workers.github.groups import RunnerGroups
from workers.github.lists import Lists
from workers.github.login import Login
from workers.github.pace import Pace
from workers.github.registration import Registrations
from workers.github.remarks import Remarks
from workers.github.workflows import Workflows


class AppGitHub(Registrations, RunnerGroups, Workflows, Remarks):
    """`workers.ports.GitHub` for one App or several, and their `lists`.

    Threads share tokens, and each has connections of its own.
    """

    def __init__(self, url: str, apps: Mapping[int, str], pace: Pace | None = None, mark: str = "") -> None:
        """`url` is the API's root, without a slash at its end; `apps` are private keys (PEM) by App id.

        `mark` is how the names of our runners begin: what is registered under another name is never taken away.

        Raises `BadInput` for a key that cannot sign.
        """
        logins = [Login(url, app_id, key) for app_id, key in apps.items()]
        calls = Calls(logins, pace)
        super().__init__(calls, mark)
        self.lists = Lists(calls)
