"""What a refusal of EC2 means, where several pools have refused at once or AWS says too much."""

from __future__ import annotations

import pytest

from workers.domain.errors import NoCapacity, Refused, SpotError, Throttled, Unreachable
from workers.providers.aws.answers import QUOTAS, Answer, error_of, worst

REGION = "eu-central-1"


def told(code: str, message: str = "no", status: int = 400) -> SpotError:
    return error_of(Answer("CreateFleet", code, message, status), REGION)


def test_what_may_change_is_worth_another_try_even_if_other_pools_never_will() -> None:
    never, later = told("InvalidAMIID.NotFound", "ami-0"), told("InsufficientInstanceCapacity", "m8i.large: none")
    found = worst([never, later, later])
    assert isinstance(found, NoCapacity)
    assert "m8i.large: none" in str(found)
    assert str(found).endswith("(and 1 more pools said such things)")
    assert isinstance(worst([never, never]), Refused)
    assert str(worst([never])) == str(never)


@pytest.mark.parametrize("code", sorted(QUOTAS))
def test_a_quota_is_named_with_its_number(code: str) -> None:
    found = error_of(Answer("CreateFleet", code, "no more"), REGION, {"L-34B43A08": "64", "L-1216C47A": "32"}.get)
    quota = QUOTAS[code]
    assert isinstance(found, NoCapacity)
    assert f"“{quota.name}” ({quota.code}) of {'64' if quota.code == 'L-34B43A08' else '32'} vCPUs is used up" in str(
        found
    )


def test_the_number_in_the_message_goes_before_the_one_that_would_be_asked_for() -> None:
    answer = Answer("CreateFleet", "VcpuLimitExceeded", "your current vCPU limit of 5 allows for")
    assert "of 5 vCPUs" in str(error_of(answer, REGION, lambda _: "32"))


@pytest.mark.parametrize("code", ["AuthFailure", "SignatureDoesNotMatch", "UnauthorizedOperation"])
def test_what_aws_repeats_of_credentials_is_not_told(code: str) -> None:
    message = "You are not authorized. Encoded authorization failure message: c2VjcmV0 AKIAEXAMPLE"
    assert "c2VjcmV0" not in str(told(code, message))
    assert "AKIAEXAMPLE" not in str(told(code, message))


def test_a_long_message_is_cut_and_stays_one_line() -> None:
    found = str(told("InvalidParameterValue", "word\n" * 500))
    assert "\n" not in found
    assert len(found) < 500


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [("NeverHeardOf", 400, Refused), ("NeverHeardOf", 503, Unreachable), ("RequestLimitExceeded", 503, Throttled)],
)
def test_a_code_that_nobody_knows_is_judged_by_its_status(code: str, status: int, kind: type[SpotError]) -> None:
    assert type(told(code, status=status)) is kind
