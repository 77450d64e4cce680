"""The just-in-time configuration: taken from the environment, and gone from there afterwards."""

from __future__ import annotations

import base64
import binascii
import ctypes
import json
import os
from typing import Any, Final, NamedTuple

# The name under which actions/runner takes it, too.
VARIABLE: Final = "ACTIONS_RUNNER_INPUT_JITCONFIG"
PR_SET_DUMPABLE: Final = 4


class BadConfiguration(Exception):
    """The configuration cannot be used; the text says why, without showing any of it."""


class Configuration(NamedTuple):
    """What a runner needs to know of itself."""

    name: str
    server_url: str
    secret: str
    work_folder: str


def taken() -> Configuration:
    """Take the configuration out of the environment, so that no step can read it there.

    The first environment of a process stays readable under /proc for its own user, and the steps run as that user, so
    this process is closed to its user's eyes as well.
    """
    text = os.environ.pop(VARIABLE, None)
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    if not text:
        raise BadConfiguration(f"{VARIABLE} is not set; start this program with a just-in-time configuration in it")
    return decoded(text)


def decoded(text: str) -> Configuration:
    """Read the shape that GitHub gives it: base64 of named files, each of which is base64 of JSON."""
    try:
        files = _json(text)
        runner, credentials = _json(files[".runner"]), _json(files[".credentials"])
        return Configuration(
            name=runner["AgentName"],
            server_url=runner["ServerUrl"].rstrip("/"),
            secret=credentials["Data"]["Secret"],
            work_folder=runner["WorkFolder"],
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        # The cause may quote the secret, so only its kind is told.
        raise BadConfiguration(f"{VARIABLE} is not a just-in-time configuration ({type(error).__name__})") from None


def _json(text: str) -> Any:  # noqa: ANN401  # whatever JSON it holds
    try:
        return json.loads(base64.b64decode(text, validate=True))
    except binascii.Error as error:
        raise ValueError from error
