"""Guests that started from one snapshot are not one guest, and what a job runs as cannot reach the host's channel."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.scripted_guest import HOLD_LIMIT_S, identity, printed, scripted_package, stocked
from workers.host.disks import Stock
from workers.host.packages import PackageShelf

pytestmark = [pytest.mark.guest, pytest.mark.timeout(600)]

STORE = Path("/var/cache/spot-runner/packages")
CACHE = Path("/var/cache/spot-runner/unpacked")
SECRET = "jit-5ecret-that-must-not-be-seen"

WHO = """
import json, os, socket, subprocess, time
show = lambda *what: subprocess.run(["ip", *what], capture_output=True, text=True).stdout
print("FOUND", json.dumps({
    "random": os.urandom(16).hex(), "now": time.time(), "hostname": socket.gethostname(),
    "machine_id": open("/etc/machine-id").read().strip(), "uid": os.getuid(), "groups": os.getgroups(),
    "session": os.getsid(0) == os.getpid(), "cwd": os.getcwd(),
    "link": show("link", "show", "eth0"), "address": show("-4", "address", "show", "eth0"),
    "neighbour": show("neigh"), "route": show("route"),
}), flush=True)
"""

HOLD = """
import json, urllib.request
def call(body=None):
    method = "GET" if body is None else "PUT"
    request = urllib.request.Request("http://127.0.0.1:7707/v1/hold", data=body, method=method)
    return json.load(urllib.request.urlopen(request))
before, held, released = call(), call(b'{"seconds": 3600}'), call(b'{"seconds": 0}')
print("FOUND", json.dumps({"before": before, "held": held, "released": released}), flush=True)
"""

# The pattern goes in through a pipe, so that the search does not find its own argument list.
SEARCH = f"""
# {SECRET}
import json, os, subprocess
secret = os.environ.pop("ACTIONS_RUNNER_INPUT_JITCONFIG").splitlines()[1].split()[1]
def root(command):
    return subprocess.run(["sudo", "sh", "-c", command], input=secret, capture_output=True, text=True).stdout
def counted(source):
    return int(root(f"cat > /run/pattern; {{source}} | grep -acF -f /run/pattern; rm /run/pattern"))
def opens(path, flags):
    try:
        os.close(os.open(path, flags))
    except OSError as error:
        return error.strerror
    return "opens"
print("FOUND", json.dumps({{
    "length": len(secret),
    "files": root("grep -rlF -f - /etc /home /opt /root /run /srv /tmp /var 2>/dev/null").split(),
    "control": root("cat > /run/control; grep -rlF -f /run/control /run").split(),
    "arguments": counted("cat /proc/[0-9]*/cmdline"),
    "journal": counted("journalctl -o verbose"),
    "journal_lines": int(root("journalctl -o cat | wc -l")),
    "port": [opens("/dev/virtio-ports/agent", flags) for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR)],
    "memory": opens("/dev/mem", os.O_RDONLY),
}}), flush=True)
"""


@pytest.fixture(scope="module")
def stock() -> Iterator[Stock]:
    shelf = PackageShelf(STORE, CACHE)
    with stocked(scripted_package(shelf.unpacked(shelf.named("debian-12")))) as made:
        yield made


def test_guests_of_one_snapshot_differ_in_all_that_must_differ(stock: Stock) -> None:
    async def four() -> list[tuple[float, dict[str, object]]]:
        async def one(number: int) -> tuple[float, dict[str, object]]:
            found = await printed(stock, number, WHO)
            return time.time(), found

        return await asyncio.gather(*(one(number) for number in range(1, 5)))

    seen = asyncio.run(four())

    for name in ("random", "hostname", "machine_id"):
        assert len({str(found[name]) for _, found in seen}) == 4, name
    for number, (_, found) in enumerate(seen, start=1):
        told = identity(number)
        assert found["hostname"] == told["hostname"]
        assert found["machine_id"] == told["machine_id"]
        assert (found["uid"], found["groups"], found["cwd"]) == (1001, [1001], "/home/runner")
        assert found["session"]
        assert told["mac"] in str(found["link"])
        assert "mtu 1370" in str(found["link"])
        assert ",UP" in str(found["link"])
        assert f"inet {told['ip']}/16" in str(found["address"])
        assert "10.77.0.1 dev eth0 lladdr 52:54:00:77:00:01 PERMANENT" in str(found["neighbour"])
        assert "default via 10.77.0.1 dev eth0" in str(found["route"])


def test_a_restored_guest_knows_what_time_it_is(stock: Stock) -> None:
    """Its clock is read between the moments at which it was started and at which its answer was here."""
    began = time.time()
    found = asyncio.run(printed(stock, 1, WHO))
    ended = time.time()

    assert began - 1 < float(found["now"]) < ended + 1


def test_the_secret_is_nowhere_and_the_job_cannot_open_the_host_s_port(stock: Stock) -> None:
    found = asyncio.run(printed(stock, 1, SEARCH))

    assert found["length"] == len(SECRET)
    assert found["control"] == ["/run/control"], "the search itself does not work"
    assert found["journal_lines"] > 10, "there is no journal to search"
    assert found["files"] == []
    assert found["arguments"] == 0
    assert found["journal"] == 0
    assert found["port"] == ["Permission denied"] * 3
    assert found["memory"] == "Permission denied"


def test_a_job_asks_its_guest_not_to_be_moved_and_the_host_hears_of_it(stock: Stock) -> None:
    """As the unprivileged user that jobs run as, on the loopback of a restored guest."""
    found = asyncio.run(printed(stock, 1, HOLD))

    assert found["before"] == {"seconds_left": 0.0, "budget_left_s": HOLD_LIMIT_S, "limit_s": HOLD_LIMIT_S}
    assert found["held"]["seconds_left"] == HOLD_LIMIT_S
    assert "3600 s were asked for and 600 s are granted" in found["held"]["said"]
    assert found["released"]["seconds_left"] == 0
    assert found["status"]["hold"] == {"number": 2, "seconds": 0.0}
