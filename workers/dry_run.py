"""What would keep a cloud from giving us a host, asked before a job needs one: a port beside `workers.ports`."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Protocol

from workers.domain.market import Sources
from workers.domain.runner import Shape


@dataclass(frozen=True)
class Fault:
    """What would go wrong, in one sentence with the place, the problem and the remedy."""

    sentence: str
    is_certain: bool = True
    """A host would not be launched, or not be ended; otherwise it may be, or there is less to choose from."""


class DryRun(Protocol):
    """A cloud that says what it would say to a launch and to an end. Nothing is changed there by asking."""

    @property
    def name(self) -> str:
        """The name of the cloud."""

    def faults(self, spec: Shape, wanted: Collection[Sources]) -> Iterator[Fault]:
        """Yield what would go wrong with a host of this size, wanted from there on those terms, each once.

        Raises `Barred` where nothing can be asked with these credentials, `Throttled` and `Unreachable`.
        """
