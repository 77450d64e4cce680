"""Interrupter over AWS Fault Injection Service: AWS itself takes a spot instance back, as it does when it needs it.

    template (one instance, one action) ─▶ experiment ─▶ notice, two minutes before the end ─▶ the instance ends
        └── deleted again: an experiment keeps what it was started from

The action is `aws:ec2:send-spot-instance-interruptions`; AWS does not charge for it. What it asks of an account is in
docs/operating.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from workers.domain.errors import Refused, SpotError, Throttled, Unreachable
from workers.domain.host import Host

ACTION: Final = "aws:ec2:send-spot-instance-interruptions"
TARGET: Final = "SpotInstances"
# The action's own bounds of `durationBeforeInterruption`; the notice itself always comes two minutes before the end.
NOTICE_MIN: Final = timedelta(minutes=2)
NOTICE_MAX: Final = timedelta(minutes=15)
CALL_LIMIT_S: Final = 5.0
_SLOWER: Final = frozenset({"ThrottlingException", "TooManyRequestsException", "ServiceQuotaExceededException"})


class FaultInjection:
    """ports.Interrupter in one region."""

    def __init__(self, fis: Any, sts: Any, role_arn: str, region: str) -> None:  # noqa: ANN401 boto3 makes its classes when it runs
        """`role_arn` is the role that the service takes on; it may send spot interruptions."""
        self._fis, self._sts, self._role, self._region = fis, sts, role_arn, region

    @classmethod
    def open(cls, role_arn: str, region: str, endpoint: str | None = None) -> FaultInjection:
        """Use the credentials that boto3 finds by itself."""
        limits = Config(connect_timeout=CALL_LIMIT_S, read_timeout=CALL_LIMIT_S, retries={"total_max_attempts": 2})
        fis, sts = (
            boto3.client(name, region_name=region, endpoint_url=endpoint, config=limits) for name in ("fis", "sts")
        )
        return cls(fis, sts, role_arn, region)

    def take_back(self, host: Host, notice: timedelta) -> None:
        """Keep ports.Interrupter's promise; AWS gives two minutes at least."""
        if not NOTICE_MIN <= notice <= NOTICE_MAX:
            raise Refused(
                f"AWS takes no instance back in {notice.total_seconds():.0f} s; use --notice-seconds "
                f"{NOTICE_MIN.total_seconds():.0f}..{NOTICE_MAX.total_seconds():.0f}"
            )
        if host.instance_id is None:
            raise Refused(f"{host.id} has no instance, so AWS has nothing to take back")
        template = self._ask("create_experiment_template", **self._template(host, host.instance_id, notice))
        key = template["experimentTemplate"]["id"]
        try:
            self._ask("start_experiment", experimentTemplateId=key, clientToken=f"{host.id}-take-back")
        finally:
            with suppress(SpotError):  # it costs nothing, and carries our tag
                self._ask("delete_experiment_template", id=key)

    def _template(self, host: Host, instance_id: str, notice: timedelta) -> Mapping[str, object]:
        partition = self._role.split(":")[1]
        account = self._ask_sts()
        arn = f"arn:{partition}:ec2:{self._region}:{account}:instance/{instance_id}"
        before = f"PT{notice.total_seconds():.0f}S"
        return {
            "clientToken": f"{host.id}-template",
            "description": f"spot-runner drill: take back {host.id}",
            "roleArn": self._role,
            "stopConditions": [{"source": "none"}],
            "targets": {
                TARGET: {"resourceType": "aws:ec2:spot-instance", "resourceArns": [arn], "selectionMode": "ALL"}
            },
            "actions": {
                "interrupt": {
                    "actionId": ACTION,
                    "parameters": {"durationBeforeInterruption": before},
                    "targets": {TARGET: TARGET},
                }
            },
            "tags": {"spot-runner": "drill"},
        }

    def _ask_sts(self) -> str:
        try:
            return str(self._sts.get_caller_identity()["Account"])
        except (BotoCoreError, ClientError) as error:
            raise _error("get_caller_identity", error) from error

    def _ask(self, call: str, **named: object) -> Any:  # noqa: ANN401 as boto3 answers
        try:
            return getattr(self._fis, call)(**named)
        except (BotoCoreError, ClientError) as error:
            raise _error(call, error) from error


def _error(call: str, error: Exception) -> SpotError:
    response = getattr(error, "response", {})
    sentence = f"AWS answered to {call}: {error}"
    if response.get("Error", {}).get("Code") in _SLOWER:
        return Throttled(sentence)
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
    return Refused(sentence) if 400 <= status < 500 else Unreachable(sentence)  # noqa: PLR2004 HTTP's own classes
