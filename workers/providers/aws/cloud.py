"""Cloud over EC2: one instant fleet of one instance for each host.

    launch ─▶ known by its tag? ─▶ spot, several pools ─┬─ none to be had ─▶ on-demand, if the pool's terms allow it
                                                        └─ nested virtualization refused ─▶ remembered; asked for PVM

The tag and the client token both carry the host's id. A launch whose answer was lost is found by its tag, or answered
again by its token; only an answer that has given nothing makes the next token another one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, assert_never

from workers.domain.errors import NoCapacity, Refused
from workers.domain.market import ANYWHERE, Market, Sources, SpotPool
from workers.domain.names import HostId
from workers.domain.runner import Shape
from workers.domain.whereabouts import Machine
from workers.ports import Instance, InstanceState
from workers.providers.aws.account import Account, AnsweredError
from workers.providers.aws.answers import UNSUPPORTED, Answer, worst
from workers.providers.aws.requests import (
    HOST_TAG,
    Boot,
    Pool,
    Rental,
    Terms,
    boot_of,
    fleet_request,
    owned_filter,
    pools_of,
    template,
    user_data_of,
)

TERMINATED: Final = "terminated"
ALIVE: Final = ["pending", "running", "shutting-down", "stopping", "stopped"]
_NO_TEMPLATE: Final = "InvalidLaunchTemplate"
_STATES: Final = {
    "pending": InstanceState.PENDING,
    "stopped": InstanceState.STOPPED,
    TERMINATED: InstanceState.TERMINATED,
}


class Aws:
    """ports.Cloud in one region."""

    def __init__(self, account: Account, resting: Callable[[], Collection[SpotPool]] = tuple) -> None:
        """`resting` tells which spot pools have taken back so much lately that nothing is bought there."""
        self._account, self._resting = account, resting
        self._refused: set[tuple[str, Terms]] = set()
        """For which types, on which terms, EC2 has refused nested virtualization: forgotten at a restart."""
        self._in_vain: defaultdict[tuple[HostId, Terms], int] = defaultdict(int)

    @classmethod
    def open(
        cls, rental: Rental, endpoint: str | None = None, resting: Callable[[], Collection[SpotPool]] = tuple
    ) -> Aws:
        """Use the credentials that boto3 finds by itself. Raises `BadInput`."""
        return cls(Account.open(rental, endpoint), resting)

    @property
    def name(self) -> str:
        return "aws"

    @property
    def refused(self) -> Collection[tuple[str, Terms]]:
        """For which types, on which terms, EC2 has refused nested virtualization since the start."""
        return frozenset(self._refused)

    def launch(
        self, host_id: HostId, spec: Shape, user_data: Mapping[str, str], sources: Sources = ANYWHERE
    ) -> Instance:
        known = self.describe(host_id)
        if known is not None:
            return self._priced(known)
        told, problems = user_data_of(user_data), list[NoCapacity]()
        for terms in terms_of(sources.market):
            try:
                return self._priced(self._bought(host_id, spec, told, sources, terms))
            except NoCapacity as error:
                problems.append(error)
        raise NoCapacity("; ".join(str(one) for one in problems))

    def terminate(self, host_id: HostId) -> None:
        # All that carry the host's tag: if it was ever launched twice by mistake, both end with it.
        ids = [one["InstanceId"] for one in self._found(host_id) if one["State"]["Name"] != TERMINATED]
        if ids:
            self._account.ask("terminate_instances", InstanceIds=ids)
        for terms in Terms:
            self._in_vain.pop((host_id, terms), None)

    def describe(self, host_id: HostId) -> Instance | None:
        found = sorted(self._found(host_id), key=lambda one: (one["State"]["Name"] == TERMINATED, one["LaunchTime"]))
        return self._instance(found[0]) if found else None

    def owned(self) -> Iterable[Instance]:
        return [self._instance(one) for one in self._found() if one["State"]["Name"] in ALIVE]

    # ------------------------------------------------------------ bought

    def _bought(self, host_id: HostId, spec: Shape, told: str, sources: Sources, terms: Terms) -> Instance:
        pools = self._pools(spec, sources, terms)
        said = self._fleet(host_id, spec, told, pools, terms)
        if isinstance(said, Instance):
            return said
        refused = {(one.kind.name, terms) for one in pools if one.boot is Boot.NESTED and _is_refused(one, said)}
        if not refused:
            raise worst([self._account.error_of(one.answer) for one in said])
        self._refused |= refused
        return self._bought(host_id, spec, told, sources, terms)  # each time at least one type fewer is asked for it

    def _pools(self, spec: Shape, sources: Sources, terms: Terms) -> list[Pool]:
        """Return where one could come from. Raises `NoCapacity` or `Refused` if it could not from anywhere."""
        account, rental = self._account, self._account.rental
        subnets = [one for one in account.subnets if not sources.zones or one.zone in sources.zones]
        kinds = [one for one in account.kinds if one.holds(spec)]
        if not subnets or not kinds:
            raise Refused(_unfit(rental, spec, sources, has_subnets=bool(subnets)))
        boots = {one.name: boot_of(one, terms, rental, self._refused) for one in kinds}
        pools = list(pools_of(kinds, subnets, boots))
        if not pools:
            raise NoCapacity(
                f"AWS {rental.region}: no image for {', '.join(boots)} as {terms.value}, which give no hardware "
                "virtualization; set SPOT_RUNNER_AWS_PVM_IMAGE, or name types that have it"
            )
        # What was chosen but is not sold here, or not in this image, does not hold the rest up.
        picked = [one for one in pools if one.spot == sources.pick]
        return self._awake(picked or pools, sources) if terms is Terms.SPOT else picked or pools

    def _awake(self, pools: list[Pool], sources: Sources) -> list[Pool]:
        """Leave out what rests. Where only spot will do, and all of it rests, a bad pool is better than none."""
        resting = frozenset(self._resting())
        awake = [one for one in pools if one.spot not in resting]
        if awake or sources.market is Market.SPOT:
            return awake or pools
        names = ", ".join(str(one) for one in sorted(resting, key=str))
        raise NoCapacity(f"AWS {self._account.rental.region}: machines were taken back from {names} lately")

    def _fleet(
        self, host_id: HostId, spec: Shape, told: str, pools: Sequence[Pool], terms: Terms
    ) -> Instance | list[_Said]:
        """Ask for one instance; what EC2 said of the pools instead, if there is none."""
        account, rental = self._account, self._account.rental
        named: dict[str, list[Pool]] = {}
        for one in pools:
            named.setdefault(self._template(one, spec), []).append(one)
        token = f"{rental.deployment}-{host_id}-{terms.value}-{self._in_vain[host_id, terms]}"
        request = fleet_request(rental, host_id, terms, token, told, named)
        try:
            answer = account.ask_bluntly("create_fleet", **request)
        except AnsweredError as error:
            said = [_Said(error.answer)]
        else:
            if any(one["InstanceIds"] for one in answer.get("Instances", ())):
                return self._made(host_id, answer["Instances"][0], pools)
            said = [_Said.of(one) for one in answer.get("Errors", ())] or [_Said(_nothing())]
        if not any(one.answer.is_vague for one in said):
            self._in_vain[host_id, terms] += 1
        if any(one.answer.code.startswith(_NO_TEMPLATE) for one in said):
            account.forget_templates()
        return said

    def _template(self, pool: Pool, spec: Shape) -> str:
        account, rental = self._account, self._account.rental
        image = rental.pvm_image if pool.boot is Boot.PVM else rental.kvm_image
        assert image is not None, "boot_of() has chosen what there is an image for"  # noqa: S101
        content = template(
            rental, account.image(image), pool.boot, account.group, spec, is_public=pool.subnet.is_public
        )
        return account.template(content)

    def _made(self, host_id: HostId, told: Mapping[str, Any], pools: Sequence[Pool]) -> Instance:
        zones = {one.subnet.id: one.subnet.zone for one in pools}
        place = told.get("LaunchTemplateAndOverrides", {}).get("Overrides", {})
        zone = place.get("AvailabilityZone") or zones.get(place.get("SubnetId", ""))
        # Its addresses are told once it is described: none is known yet.
        machine = Machine(
            self._account.rental.region, zone, told.get("InstanceType"), told.get("Lifecycle"), addresses=()
        )
        return Instance(told["InstanceIds"][0], host_id, InstanceState.PENDING, machine)

    def _priced(self, instance: Instance) -> Instance:
        """Add what an hour of it costs, as far as it can be read; nobody waits for it, and nothing fails for it."""
        machine = instance.machine
        if machine is None or machine.lifecycle != Terms.SPOT or not machine.instance_type or not machine.zone:
            return instance
        price = self._account.spot_price(SpotPool(machine.instance_type, machine.zone))
        return replace(instance, machine=replace(machine, usd_per_hour=price))

    # ------------------------------------------------------------ found

    def _found(self, host_id: HostId | None = None) -> list[dict[str, Any]]:
        filters = owned_filter(self._account.rental, host_id)
        if host_id is None:
            filters.append({"Name": "instance-state-name", "Values": ALIVE})
        pages = self._account.every("describe_instances", "Reservations", Filters=filters)
        return [one for reservation in pages for one in reservation["Instances"]]

    def _instance(self, told: Mapping[str, Any]) -> Instance:
        tags = {one["Key"]: one["Value"] for one in told.get("Tags", ())}
        machine = Machine(
            region=self._account.rental.region,
            zone=told.get("Placement", {}).get("AvailabilityZone"),
            instance_type=told.get("InstanceType"),
            lifecycle=told.get("InstanceLifecycle") or Terms.ON_DEMAND.value,
            addresses=tuple(filter(None, (told.get("PrivateIpAddress"), told.get("PublicIpAddress")))),
        )
        host_id = HostId(tags.get(HOST_TAG, ""))
        return Instance(told["InstanceId"], host_id, _state(told["State"]["Name"]), machine)


class _Said:
    """What EC2 said of one pool, or of the whole request."""

    def __init__(self, answer: Answer, instance_type: str | None = None) -> None:
        self.answer, self.instance_type = answer, instance_type

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> _Said:
        place = told.get("LaunchTemplateAndOverrides", {}).get("Overrides", {})
        kind, where = place.get("InstanceType"), place.get("AvailabilityZone") or place.get("SubnetId")
        pool = f"{kind} in {where}" if kind and where else kind
        message = f"{pool}: {told.get('ErrorMessage', '')}" if pool else told.get("ErrorMessage", "")
        return cls(Answer("CreateFleet", told.get("ErrorCode", "?"), message), kind)


def _nothing() -> Answer:
    return Answer("CreateFleet", "UnfulfillableCapacity", "the fleet has neither an instance nor an error")


def _is_refused(pool: Pool, said: Sequence[_Said]) -> bool:
    return any(one.answer.code in UNSUPPORTED and one.instance_type in {None, pool.kind.name} for one in said)


def terms_of(market: Market) -> tuple[Terms, ...]:
    """Return on which terms a host is asked for, what is tried first first."""
    match market:
        case Market.SPOT:
            return (Terms.SPOT,)
        case Market.SPOT_THEN_ON_DEMAND:
            return (Terms.SPOT, Terms.ON_DEMAND)
        case Market.ON_DEMAND:
            return (Terms.ON_DEMAND,)
        case _:
            assert_never(market)


def _state(name: str) -> InstanceState:
    """Return the port's word; while it stops or ends, something may still run there."""
    return _STATES.get(name, InstanceState.RUNNING)


def _unfit(rental: Rental, spec: Shape, sources: Sources, *, has_subnets: bool) -> str:
    if not has_subnets:
        return (
            f"AWS {rental.region}: no subnet in {', '.join(sources.zones)}; add one to SPOT_RUNNER_AWS_SUBNETS, or "
            "take these zones out of the pool"
        )
    return (
        f"AWS {rental.region}: none of {', '.join(rental.instance_types)} holds {spec.vcpus} vCPUs and "
        f"{spec.memory_mib} MiB beside what the host itself takes; name larger types in SPOT_RUNNER_AWS_INSTANCE_TYPES"
    )
