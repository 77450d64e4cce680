"""What a machine is told when it is rented, in the one format that every cloud's image reads: cloud-init's.

    control plane ──▶ #cloud-config ──▶ the cloud's metadata service, or a disk ──▶ daemon, by itself or from a file

It says who its control plane is, by which hash that is known, and the token that is good for one registration; all
else comes with the answer to that. JSON is YAML, too, so nobody needs a parser for more.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from workers.domain.errors import BadInput, Refused
from workers.domain.names import HostId

# EC2 takes no more, before it is encoded; others take as much or more, and a host may come from any.
USER_DATA_MAX: Final = 16 << 10
FIRST_LINE: Final = "#cloud-config"
BOOTSTRAP_FILE: Final = "/etc/spot-runner/bootstrap.json"
"""Where cloud-init puts what the daemon is told, for an image whose daemon does not ask the metadata service."""
# Between a token's host and its secret; neither may hold it.
_POINT: Final = "."


def cloud_config(told: Mapping[str, str]) -> str:
    """Return a machine's user data: cloud-init writes what it is told into a file that only root reads.

    Raises `Refused`, in one sentence, if that is more than `USER_DATA_MAX` bytes.
    """
    file = {
        "path": BOOTSTRAP_FILE,
        "owner": "root:root",
        "permissions": "0600",
        "content": json.dumps(dict(told), sort_keys=True) + "\n",
    }
    text = f"{FIRST_LINE}\n{json.dumps({'write_files': [file]})}\n"
    size = len(text.encode())
    if size > USER_DATA_MAX:
        longest = max(told, key=lambda name: len(told[name]))
        raise Refused(f"user data: {size} bytes, and clouds take {USER_DATA_MAX}; shorten {longest}")
    return text


def read_cloud_config(text: str) -> str:
    """Return what the daemon is told in user data, still as text. Raises `BadInput`."""
    first, _, rest = text.partition("\n")
    if first.rstrip() != FIRST_LINE:
        raise BadInput(f"user data: begins with {first[:32]!r} instead of {FIRST_LINE}; launch it with spot-runner's")
    try:
        found: Any = json.loads(rest)
        (content,) = (one["content"] for one in found["write_files"] if one["path"] == BOOTSTRAP_FILE)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadInput(
            f"user data: does not hold one {BOOTSTRAP_FILE} as spot-runner writes it ({error!r}); launch it anew"
        ) from error
    if not isinstance(content, str):
        raise BadInput(f"user data: the content of {BOOTSTRAP_FILE} is no text; launch it anew")
    return content


def host_token(host_id: HostId, secret: str) -> str:
    """Return the token of one host: it says whose it is, so that a machine needs not be told that beside."""
    return f"{host_id}{_POINT}{secret}"


def host_of_token(token: str) -> HostId:
    """Return whose token it is. Raises `BadInput`, which does not repeat it."""
    host_id, point, secret = token.partition(_POINT)
    if not (host_id and point and secret):
        raise BadInput("token: it does not say whose it is; take the one from the machine's own user data")
    return HostId(host_id)
