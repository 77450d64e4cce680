"""One project at Hetzner through its own client: calls with their errors translated, and what is read now and then."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final, TypeVar

from hcloud import APIException, Client
from hcloud.firewalls import BoundFirewall, Firewall, FirewallRule
from hcloud.images import Image
from hcloud.server_types import BoundServerType
from requests import RequestException, Response

from workers.domain.errors import Refused, SpotError, Throttled, TryLater, Unreachable
from workers.ports import Clock
from workers.providers.hetzner.answers import LIMIT_REACHED, NAME_TAKEN, Answer, error_of
from workers.providers.hetzner.budget import Budget
from workers.providers.hetzner.requests import (
    ARCHITECTURE,
    DEPLOYMENT_LABEL,
    EVERYWHERE,
    MIB_PER_GB,
    MIB_PER_GIB,
    Kind,
    Place,
    Rental,
    firewall_name,
    rules_of,
)

# The caller holds a lease of ten seconds, and makes a few calls.
CONNECT_LIMIT_S: Final = 1.0
READ_LIMIT_S: Final = 5.0
# Prices and images change by the day, what is available by the hour; each costs a request.
READ_AGAIN: Final = timedelta(minutes=5)
ENDPOINT: Final = "https://api.hetzner.cloud/v1"

T = TypeVar("T")


class AnsweredError(Exception):
    """Hetzner said no; the code is not translated yet."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(str(answer.code))
        self.answer = answer


class Account:
    """What this deployment rents from."""

    def __init__(self, client: Client, rental: Rental, clock: Clock) -> None:
        self.client, self.rental, self._clock = client, rental, clock
        self._budget = Budget()
        self._read: dict[str, tuple[datetime, object]] = {}
        # The client sleeps and repeats inside a call, for up to a minute, and drops what answers say of the hour. It
        # offers no other way to either.
        client._client._retry_max_retries = 0  # noqa: SLF001 see above
        client._client._session.hooks["response"].append(self._note)  # noqa: SLF001 see above

    @classmethod
    def open(cls, rental: Rental, token: str, clock: Clock, endpoint: str = ENDPOINT) -> Account:
        """Ask nobody yet."""
        limits = (CONNECT_LIMIT_S, READ_LIMIT_S)
        return cls(Client(token, api_endpoint=endpoint, application_name="spot-runner", timeout=limits), rental, clock)

    # ------------------------------------------------------------ calls

    def ask(self, call: str, function: Callable[[], T], *, is_urgent: bool = False) -> T:
        """Make one call. Raises the port's errors."""
        try:
            return self.ask_bluntly(call, function, is_urgent=is_urgent)
        except AnsweredError as error:
            raise self.error_of(error.answer) from error.__cause__

    def ask_bluntly(self, call: str, function: Callable[[], T], *, is_urgent: bool = False) -> T:
        """Make one call. Raises `AnsweredError` for what Hetzner refuses, the port's errors without an answer."""
        self._spend(call, is_urgent=is_urgent)
        try:
            return function()
        except APIException as error:
            details = error.details if isinstance(error.details, dict) else {}
            raise AnsweredError(Answer(call, error.code, str(error.message), details)) from error
        except RequestException as error:
            raise Unreachable(
                f"Hetzner: {call}: no answer ({type(error).__name__}); the next look asks again"
            ) from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Refused(f"Hetzner: {call}: the answer is in another form than hcloud knows ({error!r}); install a "
                          "newer spot-runner") from error  # fmt: skip

    def error_of(self, answer: Answer) -> SpotError:
        """Return the port's error for an answer."""
        return error_of(answer, self._servers() if answer.code == LIMIT_REACHED else None)

    def close(self) -> None:
        """Close every connection."""
        self.client._client._session.close()  # noqa: SLF001 it has no way of its own

    def _spend(self, call: str, *, is_urgent: bool) -> None:
        free_at = self._budget.free_at(self._clock.now(), is_urgent=is_urgent)
        if free_at is not None:
            raise Throttled(
                f"Hetzner: {call}: {self._budget} are left, and those are for ending machines; it is asked again at "
                f"{free_at:%H:%M:%S} UTC, or give spot-runner a project of its own",
                free_at,
            )

    def _note(self, response: Response, *_: object, **__: object) -> None:
        self._budget.note(response.headers, self._clock.now())

    def _servers(self) -> int | None:
        """Count the project's servers, ours or not: Hetzner names the limit that is reached, and never its number."""
        try:
            page = self.ask("list servers", lambda: self.client.servers.get_list(per_page=1))
        except (TryLater, Refused):
            return None
        return page.meta.pagination.total_entries if page.meta.pagination else None

    # ------------------------------------------------------------ what is read now and then

    @property
    def kinds(self) -> Sequence[Kind]:
        """Every server type that is still sold somewhere, with its prices."""

        def read() -> Sequence[Kind]:
            found = self.ask("list server types", self.client.server_types.get_all)
            return [kind for one in found if (kind := _kind(one)).places or kind.unpriced]

        return self._now_and_then("kinds", read)

    @property
    def image(self) -> Image:
        """What servers boot. Raises `Refused` if there is no such snapshot."""
        return self._now_and_then("image", self._find_image)

    @property
    def firewall(self) -> Firewall:
        """The firewall of our hosts; it is made when it is missing, and set right when it differs."""
        return self._now_and_then("firewall", self._make_firewall)

    def read_again(self) -> None:
        """Something has changed at Hetzner: believe nothing that was read before."""
        self._read.clear()

    def _now_and_then(self, name: str, read: Callable[[], T]) -> T:
        at, value = self._read.get(name, (None, None))
        if at is None or self._clock.now() - at > READ_AGAIN:
            value = read()
            self._read[name] = self._clock.now(), value
        return value  # type: ignore[return-value]  # each name has its own reader

    def _find_image(self) -> Image:
        wanted = self.rental.image
        if wanted.isdecimal():
            return self.ask(f"get image {wanted}", lambda: self.client.images.get_by_id(int(wanted)))
        found = self.ask("list images", lambda: self.client.images.get_all(label_selector=wanted, type=["snapshot"]))
        usable = [one for one in found if one.status == "available" and one.architecture == ARCHITECTURE]
        if not usable:
            raise Refused(
                f"Hetzner: there is no x86 snapshot with the labels {wanted!r}; build one (docs/clouds.md), or correct "
                "SPOT_RUNNER_HETZNER_IMAGE"
            )
        return max(usable, key=lambda one: one.id or 0)  # numbers only grow

    def _make_firewall(self) -> Firewall:
        name, firewalls = firewall_name(self.rental), self.client.firewalls
        rules = [
            FirewallRule("in", one.protocol, list(EVERYWHERE), one.port, None, one.description)
            for one in rules_of(self.rental)
        ]
        labels = {DEPLOYMENT_LABEL: self.rental.deployment}
        found = self.ask("find firewall", lambda: firewalls.get_by_name(name))
        if found is None:
            try:
                # hcloud calls labels text here, and sends what it is given; Hetzner wants them as everywhere.
                return self.ask_bluntly("create firewall", lambda: firewalls.create(name, rules, labels)).firewall  # type: ignore[arg-type]  # see above
            except AnsweredError as error:
                if error.answer.code != NAME_TAKEN:
                    raise self.error_of(error.answer) from error.__cause__
                found = self.ask("find firewall", lambda: firewalls.get_by_name(name))
        if found is None:
            raise Unreachable(f"Hetzner: the firewall {name} is not to be seen yet; the next look asks again")
        if not _has(found, rules):
            self.ask("set firewall rules", lambda: firewalls.set_rules(found, rules))
        return found


def _kind(told: BoundServerType) -> Kind:
    prices = {one["location"]: float(one["price_hourly"]["net"]) for one in told.prices or ()}
    return Kind(
        name=told.name or "",
        vcpus=told.cores or 0,
        memory_mib=int((told.memory or 0) * MIB_PER_GIB),
        disk_mib=int((told.disk or 0) * MIB_PER_GB),
        architecture=told.architecture or "",
        places=tuple(_places(told, prices)),
        unpriced=tuple(name for name, _ in _here(told) if name not in prices),
    )


def _places(told: BoundServerType, prices: dict[str, float]) -> Iterator[Place]:
    for name, is_available in _here(told):
        if name in prices:
            yield Place(name, prices[name], is_available=is_available)


def _here(told: BoundServerType) -> Iterator[tuple[str, bool]]:
    """Yield each location that goes on to sell this type, and whether it has one now."""
    for one in told.locations or ():
        if one.deprecation is None:
            yield one.location.data_model.name or "", bool(one.available)


def _has(firewall: BoundFirewall, rules: Sequence[FirewallRule]) -> bool:
    def told(all_rules: Sequence[FirewallRule]) -> set[tuple[str, str, str | None, frozenset[str]]]:
        return {(one.direction, one.protocol, one.port, frozenset(one.source_ips)) for one in all_rules}

    return told(firewall.rules or []) == told(rules)
