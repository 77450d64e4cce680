"""How tests and the demo speak to a simulated GitHub that runs as a process of its own."""

from __future__ import annotations

from collections.abc import Sequence
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

    def install(self, account: str) -> int:
        """Install the App in an account (the owner part of repositories) and return the installation's id."""
        return int(self._ask("POST", "/_simulator/installations", {"account": account})["id"])

    def start_jobs(
        self,
        repository: str,
        labels: Sequence[str],
        steps: Sequence[tuple[str, str]],
        count: int = 1,
        *,
        together: bool = False,
        of_fork: bool = False,
    ) -> list[int]:
        """Start jobs of `(name, script)` steps, each in a run of its own unless `together`; return their ids."""
        orders = [{"name": name, "run": run} for name, run in steps]
        wish: Json = {"repository": repository, "labels": list(labels), "steps": orders}
        answer = self._ask(
            "POST", "/_simulator/jobs", wish | {"count": count, "together": together, "of_fork": of_fork}
        )
        return [int(one) for one in answer["ids"]]

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

    def plant(self, kind: str, verb: str, path: str, times: int = 1) -> None:
        """Let the next matching calls of the public API meet a fault; the kinds are `faults.FaultKind`'s."""
        self._ask("POST", "/_simulator/faults", {"kind": kind, "verb": verb, "path": path, "times": times})

    def _ask(self, verb: str, path: str, body: Json | None = None) -> Any:  # noqa: ANN401  # whatever JSON it answers
        answer = self._http.request(verb, path, json=body)
        answer.raise_for_status()
        return answer.json()
