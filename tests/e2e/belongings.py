"""What a rig's hosts have by name, so that what moves leave behind is seen: counted before and after, it is the same.

per place: files below its home, interfaces, bridge entries, packet filter, control groups
this process (the daemons of all hosts): open files, threads, children
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.e2e.engine_rig import Rig
from tests.integration.wires import Place, run
from workers.host.cgroups import ROOT, hierarchy

Belongings = Mapping[str, Counter[str]]
"""What of whom -> the names of what there is."""
# How often something happened, what a number stands for here, and the order of making: they change by themselves.
PASSING = {"counter", "handle", "metainfo", "packets", "bytes"}


def belongings(rig: Rig, *others: Place) -> Belongings:
    """Return what the rig's hosts, these places and this process have now."""
    found: dict[str, Counter[str]] = {}
    for name, host in rig.hosts.items():
        home = host.parts.home.parent
        found[f"{name}: files"] = Counter(str(path.relative_to(home)) for path in home.rglob("*"))
        found[f"{name}: control groups"] = Counter(_groups(host.id))
    for place in (*(host.place for host in rig.hosts.values()), *others):
        name = place.name.rpartition("-")[2]
        found[f"{name}: interfaces"] = Counter(link["ifname"] for link in _told(place, "ip", "link"))
        found[f"{name}: bridge entries"] = Counter(map(_entry, _told(place, "bridge", "fdb")))
        found[f"{name}: packet filter"] = Counter(_rules(place))
    return found | {
        "daemons: open files": Counter(_open_files()),
        "daemons: threads": Counter(_threads()),
        "daemons: children": Counter(_children()),
    }


def grown(before: Belongings, after: Belongings) -> list[str]:
    """Return what there is more of afterwards."""
    none: Counter[str] = Counter()
    return [
        f"{what}: {name}" + (f" ({count} times)" if count > 1 else "")
        for what, names in after.items()
        for name, count in (names - before.get(what, none)).items()
    ]


def _told(place: Place, program: str, what: str) -> list[dict[str, Any]]:
    told = run(program, "-json", "-n", place.name, what, "show")
    return list(json.loads(told)) if told.strip() else []


def _entry(entry: dict[str, Any]) -> str:
    """A permanent one is the interface's own, whose address is another one each time that it is made."""
    return _steady({**entry, "mac": "its own"} if entry["state"] == "permanent" else entry)


def _rules(place: Place) -> Iterator[str]:
    """Yield each part of the packet filter, and each element of its sets by itself."""
    for part in json.loads(run("ip", "netns", "exec", place.name, "nft", "-j", "list", "ruleset"))["nftables"]:
        ((kind, body),) = part.items()
        if kind == "metainfo":
            continue
        for element in body.pop("elem", []):
            yield f"element of {body['name']}: {_steady(element)}"
        yield f"{kind}: {_steady(body)}"


def _steady(value: object) -> str:
    return json.dumps(_without_passing(value), sort_keys=True)


def _without_passing(value: object) -> object:
    match value:
        case dict():
            return {key: _without_passing(inner) for key, inner in value.items() if key not in PASSING}
        case list():
            return [_without_passing(inner) for inner in value]
        case _:
            return value


def _groups(host: str) -> Iterator[str]:
    for controller, mount in hierarchy().mounts.items():
        place = mount / ROOT / host
        yield from (f"{controller}: {path.relative_to(place)}" for path in place.rglob("*") if path.is_dir())


def _open_files() -> Iterator[str]:
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the one that lists them
            yield _numberless(str(link.readlink()))


def _threads() -> Iterator[str]:
    """Yield all but those of pools, which grow to their own bounds by themselves."""
    names = (_numberless(thread.name) for thread in threading.enumerate())
    return (name for name in names if not name.startswith(("asyncio", "ThreadPool")))


def _children() -> Iterator[str]:
    for place in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            name, _, rest = place.read_text().partition("(")[2].rpartition(")")
            if int(rest.split()[1]) == os.getpid():
                yield name


def _numberless(name: str) -> str:
    return re.sub(r"\d+", "#", name)
