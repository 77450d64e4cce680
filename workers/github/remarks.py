"""What we say beside commits: check runs of our App's."""

from __future__ import annotations

from typing import Final

from workers.domain.remark import Remark
from workers.github.answers import Json
from workers.github.calls import Calls

PER_PAGE: Final = 100


class Remarks:
    """Makes check runs, one for each key."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def remark(self, remark: Remark) -> None:
        """Put a check run beside a commit. Whatever stands there under its key gets its words instead."""
        checks, where = f"/repos/{remark.repository}/check-runs", remark.installation_id
        with self._calls.translated(where, f"remarking on {remark.head_sha} of {remark.repository}"):
            there = self._number_of(remark)
            if there is None:
                made = {"name": remark.name, "head_sha": remark.head_sha, "external_id": remark.key}
                self._calls.ask(where, "POST", checks, body=made | _words(remark))
            else:
                self._calls.ask(where, "PATCH", f"{checks}/{there}", body=_words(remark))

    def _number_of(self, remark: Remark) -> int | None:
        """Return the number of the check run that has this key already: the answer to an earlier try may be lost."""
        path = f"/repos/{remark.repository}/commits/{remark.head_sha}/check-runs"
        asked: Json = {"check_name": remark.name, "filter": "all", "per_page": PER_PAGE}
        listed = self._calls.ask(remark.installation_id, "GET", path, parameters=asked).body
        return next((one["id"] for one in listed["check_runs"] if one["external_id"] == remark.key), None)


def _words(remark: Remark) -> Json:
    """Return what is said in a check run that is over as soon as it is made."""
    output = {"title": remark.title, "summary": remark.summary}
    return {"status": "completed", "conclusion": remark.verdict.value, "output": output}
