"""What EC2 would say to a launch and to an end: the adapter's own launch, in which every change is a dry run.

may it read? ─▶ is all there that the settings name? ─▶ launch, on each of the pools' terms ─▶ quotas ─▶ an end
                                                        │
                                  each call with DryRun, and RunInstances for what a fleet makes by it

EC2 answers a dry run with `DryRunOperation` if it would have carried it out, with `UnauthorizedOperation` if a
permission is missing (`DryRun` in EC2's API reference), and otherwise with what it would have said. IAM is asked about
"launch-template/*" where a template is not there yet (seen in CloudTrail, kubernetes-sigs/karpenter issue 2813): a role
that is bound to the template's tag, as that of infra/aws is, is then refused what it will be allowed. So may one be
that is bound to an instance's. These are doubts, and no certain faults.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from typing import Any, Final

from workers.domain.errors import NoCapacity, Refused, SpotError, TryLater
from workers.domain.market import Market, Sources
from workers.domain.names import HostId
from workers.domain.runner import Shape
from workers.dry_run import Fault
from workers.providers.aws.account import ALLOWED_ALREADY, EXISTS, Account, AnsweredError
from workers.providers.aws.answers import CREDENTIALS, PERMISSION, UNSUPPORTED, Answer, permission_of
from workers.providers.aws.cloud import Aws, terms_of
from workers.providers.aws.quotas import Quota, quota_of
from workers.providers.aws.requests import Kind, Terms, instance_request

# The forms that ids have; nothing has these.
NO_GROUP: Final = "sg-00000000000000000"
NO_INSTANCE: Final = "i-00000000000000000"
READS: Final = ("describe_instances", "describe_images", "describe_subnets", "describe_route_tables")
# Asked where the settings name no group.
READS_GROUPS: Final = "describe_security_groups"
_READING: Final = ("describe_", "get_")
_WOULD: Final = frozenset({"DryRunOperation"}) | EXISTS | ALLOWED_ALREADY
# What IAM is asked about for a template that is not there.
_ANY_TEMPLATE: Final = ":launch-template/*"
_AS_IF: Final[Mapping[str, Mapping[str, Any]]] = {
    "create_fleet": {"Instances": [{"InstanceIds": [NO_INSTANCE]}]},
    "create_security_group": {"GroupId": NO_GROUP},
}
_MARKETS: Final = {Terms.SPOT: Market.SPOT, Terms.ON_DEMAND: Market.ON_DEMAND}


class DryAccount(Account):
    """Reads what there is, and asks of all else only whether it would be carried out; then it goes on as if it had."""

    def __init__(self, *given: Any) -> None:  # noqa: ANN401 as the account takes it
        super().__init__(*given)
        self._told: dict[str, Fault] = {}
        self._contents: dict[str, Mapping[str, Any]] = {}

    @property
    def told(self) -> Collection[Fault]:
        """What was refused so far, each permission and each sentence once."""
        return tuple(self._told.values())

    def ask_bluntly(self, call: str, **named: object) -> Any:  # noqa: ANN401 as boto3 answers
        if call.startswith(_READING):
            return super().ask_bluntly(call, **named)
        self.ask_whether(call, **named)
        if call == "create_fleet":
            self._ask_for_instances(named)
        return _AS_IF.get(call, {})

    def template(self, content: Mapping[str, Any]) -> str:
        name = super().template(content)
        self._contents[name] = content
        return name

    def ask_whether(self, call: str, **named: object) -> None:
        """Ask whether a call would be carried out, and keep what keeps it. Raises `Barred`, or `TryLater`."""
        try:
            super().ask_bluntly(call, **named, DryRun=True)
        except AnsweredError as error:
            answer = error.answer
            if answer.code in _WOULD or _is_made_up(answer, named):
                return
            problem = self.error_of(answer)
            if answer.code in CREDENTIALS or (isinstance(problem, TryLater) and not isinstance(problem, NoCapacity)):
                raise problem from error.__cause__
            if answer.code in PERMISSION or not call.startswith(_READING):  # what else is wrong is read soon
                self._keep(answer, problem, named)

    def attempt(self, look: Callable[[], object]) -> bool:
        """Look, and keep what it raises that does not pass by itself; say whether all was well."""
        try:
            look()
        except (Refused, NoCapacity) as error:
            self.tell(str(error))
            return False
        return True

    def tell(self, sentence: str, *, is_certain: bool = True) -> None:
        """Keep a fault."""
        self._told.setdefault(sentence, Fault(sentence, is_certain))

    def _ask_for_instances(self, fleet: Mapping[str, Any]) -> None:
        """Ask as EC2 does for a fleet: once for each template in each subnet."""
        for config in fleet["LaunchTemplateConfigs"]:
            content = self._contents[config["LaunchTemplateSpecification"]["LaunchTemplateName"]]
            by_subnet = {one["SubnetId"]: one for one in reversed(config["Overrides"])}
            for override in by_subnet.values():
                self.ask_whether("run_instances", **instance_request(fleet, _in_a_group(content), override))

    def _keep(self, answer: Answer, problem: SpotError, named: Mapping[str, object]) -> None:
        if answer.code not in PERMISSION:
            is_certain = answer.code not in UNSUPPORTED and not isinstance(problem, NoCapacity)
            self.tell(str(problem), is_certain=is_certain)
        elif (doubt := _doubt(answer, named)) is not None:
            self._told.setdefault(permission_of(answer), Fault(f"{problem}; {doubt}", is_certain=False))
        else:
            self._told[permission_of(answer)] = Fault(str(problem))


class AwsDryRun:
    """dry_run.DryRun in one region, by an account that has asked nothing yet."""

    def __init__(self, account: DryAccount) -> None:
        self._account, self._cloud = account, Aws(account)

    @property
    def name(self) -> str:
        return self._cloud.name

    def faults(self, spec: Shape, wanted: Collection[Sources]) -> Iterator[Fault]:
        account, rental = self._account, self._account.rental
        for call in READS if rental.security_group else (*READS, READS_GROUPS):
            account.ask_whether(call)
        account.ask_whether("describe_instance_types", InstanceTypes=list(rental.instance_types))
        if account.told:
            sentence = f"AWS {rental.region}: what a launch needs besides is looked at once all of this may be read"
            account.tell(sentence, is_certain=False)
        else:
            self._launch(spec, wanted)
            self._end()
        yield from account.told

    def _launch(self, spec: Shape, wanted: Collection[Sources]) -> None:
        if not self._is_there():
            return
        terms = dict.fromkeys((one.zones, terms) for one in wanted for terms in terms_of(one.market))
        for zones, one in terms:
            host, sources = HostId(f"spot-host-dry-{secrets.token_hex(4)}"), Sources(zones=zones, market=_MARKETS[one])
            self._account.attempt(partial(self._cloud.launch, host, spec, {}, sources))
        for one in dict.fromkeys(one for _, one in terms):
            self._quotas(spec, one)

    def _is_there(self) -> bool:
        """Look for all that the settings name, so that nothing which is wrong hides another."""
        account, rental = self._account, self._account.rental
        looks: list[Callable[[], object]] = [lambda: account.kinds, lambda: account.subnets]
        looks += [partial(account.image, one) for one in (rental.kvm_image, rental.pvm_image) if one is not None]
        return list(map(account.attempt, looks)).count(False) == 0

    def _end(self) -> None:
        ours = next((one.id for one in self._cloud.owned()), NO_INSTANCE)
        self._account.ask_whether("terminate_instances", InstanceIds=[ours])

    def _quotas(self, spec: Shape, terms: Terms) -> None:
        """Hold each quota against the smallest type that counts in it."""
        smallest = dict[Quota, Kind]()
        for kind in sorted(self._account.kinds, key=lambda one: one.vcpus):
            quota = quota_of(kind.name, is_spot=terms is Terms.SPOT)
            if quota is not None and kind.holds(spec):
                smallest.setdefault(quota, kind)
        for quota, kind in smallest.items():
            self._hold_against(quota, kind, terms)

    def _hold_against(self, quota: Quota, kind: Kind, terms: Terms) -> None:
        try:
            number = self._account.quota(quota.code)
        except Refused as error:
            self._account.tell(str(error), is_certain=False)
            return
        if number < kind.vcpus:
            sentence = (
                f"AWS {self._account.rental.region}: the quota {quota} is {number:g} vCPUs, and a {kind.name} takes "
                f"{kind.vcpus}, so none is to be had as {terms.value}; ask for more in Service Quotas, or allow other "
                "terms"
            )
            self._account.tell(sentence, is_certain=number <= 0)


def _is_made_up(answer: Answer, named: Mapping[str, object]) -> bool:
    """Say whether what is not there is what was named only to ask, or what a launch makes before."""
    return (
        (answer.code.startswith("InvalidGroup") and named.get("GroupId") == NO_GROUP)
        or (answer.code.startswith("InvalidInstanceID") and named.get("InstanceIds") == [NO_INSTANCE])
        or (answer.code.startswith("InvalidLaunchTemplate") and answer.call == "CreateFleet")
    )


def _doubt(answer: Answer, named: Mapping[str, object]) -> str | None:
    """Say why a permission may be there all the same."""
    if answer.call == "TerminateInstances" and named.get("InstanceIds") == [NO_INSTANCE]:
        return "or it is there and bound to a tag, and no instance to ask about: look again when a host runs"
    if answer.call == "CreateFleet" and _ANY_TEMPLATE in answer.message:
        return "or it is there and bound to the tag of a launch template, which the first launch makes: look again then"
    return None


def _in_a_group(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Leave a group out that is not made yet."""
    faces = [{**face} for face in content["NetworkInterfaces"]]
    for face in faces:
        if face["Groups"] == [NO_GROUP]:
            del face["Groups"]
    return {**content, "NetworkInterfaces": faces}
