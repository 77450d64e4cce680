"""Everything that can go wrong, drawn once.

SpotError
+-- TryLater          the same call may succeed later; nothing has changed
|   +-- Unreachable   the other side did not answer in time
|   +-- NoCapacity    the cloud has no such instance to sell right now
|   +-- NoRoom        the host has no room for this runner any more
|   +-- Throttled     the other side asked us to slow down
|   +-- LeaseLost     another worker owns the row now
|   +-- RunnerBusy    GitHub keeps a runner that is running a job
+-- GiveUp            the same call will never succeed; the text says why, in words for the user
|   +-- BadInput      what we were given is wrong, and the text names the field and the remedy
|   |   +-- BadPackage    a package that this host must not run
|   +-- Refused       the other side rejected the request itself
|   |   +-- NotThere       GitHub knows of no such thing, or does not show it to our App
|   |   +-- Unrecognized   GitHub does not know who asks by our key or token
|   |   +-- Barred         it takes nothing from us at all: credentials, a permission, or the account itself
|   |   +-- Unregistrable  GitHub registers no runner of this kind, however often it is asked
|   +-- Unfit         this machine lacks something that the command needs
+-- Bug               our own code broke a promise
    +-- IllegalMove   a state change that the lifecycle does not allow
"""

from __future__ import annotations

from datetime import datetime


class SpotError(Exception):
    """Base of every error that this project raises on purpose."""


class TryLater(SpotError):
    """The same call may succeed later; nothing has changed."""

    def __init__(self, text: str = "", at: datetime | None = None) -> None:
        """`at` is the moment from which it is worth to be tried again, if that is known."""
        super().__init__(text)
        self.at = at


class Unreachable(TryLater):
    """The other side did not answer in time; whether it acted is not known."""


class NoCapacity(TryLater):
    """The cloud has no such instance to sell right now."""


class NoRoom(TryLater):
    """The host has no room for this runner any more."""


class Throttled(TryLater):
    """The other side asked us to slow down."""


class LeaseLost(TryLater):
    """Another worker owns the row now, so our result must not be written."""


class RunnerBusy(TryLater):
    """GitHub keeps the registration of a runner that is running a job."""


class GiveUp(SpotError):
    """The same call will never succeed; the text says why, in words for the user."""


class BadInput(GiveUp):
    """What we were given is wrong; the text names the field, the problem and the remedy."""


class BadPackage(BadInput):
    """A package that this host must not run; the text names the entry and the property."""


class Refused(GiveUp):
    """The other side rejected the request itself."""


class NotThere(Refused):
    """GitHub knows of no such thing, or does not show it to our App; or says so for a moment only."""


class Unrecognized(Refused):
    """GitHub does not know who asks by our key or token; or says so for a moment only."""


class Barred(Refused):
    """A cloud takes nothing from us: our credentials, a permission or the account itself is not right."""


class Unregistrable(Refused):
    """GitHub registers no runner of this kind, however often it is asked."""


class Unfit(GiveUp):
    """This machine lacks something that the command needs; the text says how to get it."""


class Bug(SpotError):
    """Our own code broke a promise."""


class IllegalMove(Bug):
    """A state change that the lifecycle does not allow."""
