"""How tests and the demo speak to a simulated GitHub that runs as a process of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import httpx

TIMEOUT_S = 10.0

Json = dict[str, Any]


class SimulatorClient:
    """The `/_simulator` paths; raises `httpx.HTTPError`."""

    def __init__(self, url: str) -> None:
        """`url` is the simulator's root, without a slash at its end."""
        self._http = httpx.Client(base_url=url, timeout=TIMEOUT_S, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def is_up(self) -> bool:
        """Say whether the simulator answers."""
        try:
            self._ask("GET", "/_simulator/violations")
        except httpx.HTTPError:
            return False
        return True

    def install(self, account: str, permissions: Mapping[str, str] | None = None, *, is_told: bool = False) -> int:
        """Install the App in an account (the owner part of repositories) and return the installation's id.

        It gets what it asks for, unless the account's owner gives it these permissions only. `is_told`: its receiver
        hears of it.
        """
        asked: Json = {"account": account, "is_told": is_told}
        if permissions is not None:
            asked["permissions"] = dict(permissions)
        return int(self._ask("POST", "/_simulator/installations", asked)["id"])

    def change_installation(self, account: str, change: str, repositories: Sequence[str] = ()) -> None:
        """`suspend`, `unsuspend` or `remove` it, or let repositories be `added` to it or `removed`."""
        self._ask("POST", f"/_simulator/installations/{account}/{change}", {"repositories": list(repositories)})

    def start_jobs(
        self,
        repository: str,
        labels: Sequence[str],
        steps: Sequence[tuple[str, str]],
        count: int = 1,
        *,
        together: bool = False,
        of_fork: bool = False,
        branch: str = "main",
        environment: str | None = None,
    ) -> list[int]:
        """Start jobs of `(name, script)` steps, each in a run of its own unless `together`; return their ids."""
        orders = [{"name": name, "run": run} for name, run in steps]
        wish: Json = {"repository": repository, "labels": list(labels), "steps": orders}
        wish |= {"count": count, "together": together, "of_fork": of_fork, "branch": branch}
        wish |= {"environment": environment}
        return self._started(wish)

    def start_held(
        self, repository: str, labels: Sequence[str], steps: Sequence[tuple[str, str]], count: int = 1
    ) -> list[int]:
        """Start jobs, each in a run of its own, that wait from their first moment on until they are approved."""
        orders = [{"name": name, "run": run} for name, run in steps]
        wish: Json = {"repository": repository, "labels": list(labels), "steps": orders, "count": count}
        return self._started(wish | {"environment": "production", "held": True})

    def _started(self, wish: Json) -> list[int]:
        return [int(one) for one in self._ask("POST", "/_simulator/jobs", wish)["ids"]]

    def make_private(self, repository: str) -> None:
        """Let not everybody see a repository (`owner/name`) from its next run on."""
        self._ask("POST", f"/_simulator/repositories/{repository}/make-private", {})

    def job(self, job_id: int, after: int = 0) -> Json:
        """Return all about one attempt at a job, its log from line `after` on, and all attempts at the same job."""
        answer: Json = self._ask("GET", f"/_simulator/jobs/{job_id}?after={after}")
        return answer

    def jobs(self) -> list[Json]:
        """Return all attempts at all jobs, without their logs."""
        answer: list[Json] = self._ask("GET", "/_simulator/jobs")
        return answer

    def cancel(self, job_id: int) -> None:
        """Cancel a job."""
        self._ask("POST", f"/_simulator/jobs/{job_id}/cancel", {})

    def hold_back(self, job_id: int) -> None:
        """Let the rules of its environment hold a queued job back."""
        self._ask("POST", f"/_simulator/jobs/{job_id}/hold", {})

    def approve(self, job_id: int) -> None:
        """Let a job that waits be queued."""
        self._ask("POST", f"/_simulator/jobs/{job_id}/approve", {})

    def runners(self) -> list[Json]:
        """Return every registration that there ever was; `gone_because` is None for the live ones."""
        answer: list[Json] = self._ask("GET", "/_simulator/runners")
        return answer

    def deliveries(self) -> list[Json]:
        """Return every try to deliver a webhook, oldest first."""
        answer: list[Json] = self._ask("GET", "/_simulator/deliveries")
        return answer

    def violations(self) -> list[Json]:
        """Return what broke the published contract, `{"at", "where", "what"}`."""
        answer: list[Json] = self._ask("GET", "/_simulator/violations")
        return answer

    def checks(self) -> list[Json]:
        """Return what was last said in each check run, its repository, and in `words` how often something was."""
        answer: list[Json] = self._ask("GET", "/_simulator/checks")
        return answer

    def plant(self, kind: str, verb: str, path: str, times: int = 1, share: float = 1) -> None:
        """Let matching calls of the public API meet a fault, a share of them; the kinds are `faults.FaultKind`'s."""
        wish = {"kind": kind, "verb": verb, "path": path, "times": times, "share": share}
        self._ask("POST", "/_simulator/faults", wish)

    def set_shares(self, **shares: float) -> None:
        """Let so many of all deliveries from now on be lost, doubled, …: the fields of `fates.Shares`."""
        self._ask("PUT", "/_simulator/shares", shares)

    def shares(self) -> dict[str, int]:
        """Return how many deliveries have met what since the shares were set."""
        answer: dict[str, int] = self._ask("GET", "/_simulator/shares")
        return answer

    def standing(self) -> dict[str, int]:
        """Return `jobs`, `unfinished` of them, live `runners` and `undelivered` webhooks, as numbers."""
        answer: dict[str, int] = self._ask("GET", "/_simulator/standing")
        return answer

    def expire_lock(self, job_id: int) -> None:
        """Let a running job's lock expire now, so that GitHub fails the job."""
        self._ask("POST", f"/_simulator/jobs/{job_id}/expire", {})

    def refused(self) -> dict[str, int]:
        """Return how often each rate limit struck."""
        answer: dict[str, int] = self._ask("GET", "/_simulator/refused")
        return answer

    def admitted(self) -> dict[str, int]:
        """Return how many calls of each kind the rate limits let through."""
        answer: dict[str, int] = self._ask("GET", "/_simulator/admitted")
        return answer

    def expire_tokens(self) -> int:
        """Let every access token expire now; return how many there were."""
        return int(self._ask("POST", "/_simulator/tokens/expire", {})["expired"])

    def remove_idle(self) -> list[str]:
        """Let GitHub remove every runner that waits for a job now; return their names."""
        removed: list[str] = self._ask("POST", "/_simulator/runners/remove-idle", {})["removed"]
        return removed

    def make_group(self, organization: str, name: str, repositories: Sequence[str] | None = None) -> int:
        """Make a runner group that admits these repositories, or all of them; return its number."""
        wish: Json = {"organization": organization, "name": name}
        if repositories is not None:
            wish |= {"repositories": list(repositories)}
        return int(self._ask("POST", "/_simulator/groups", wish)["id"])

    def set_oldest_runner(self, version: str) -> None:
        """Give no job to runners of an older release than this from now on; an empty version lets all work."""
        self._ask("PUT", "/_simulator/oldest-runner", {"version": version})

    def _ask(self, verb: str, path: str, body: Json | None = None) -> Any:  # noqa: ANN401  # whatever JSON it answers
        answer = self._http.request(verb, path, json=body)
        answer.raise_for_status()
        return answer.json()
