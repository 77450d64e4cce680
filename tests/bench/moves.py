"""`./dev bench --moves N`: one busy guest moves there and back, again and again.

    guest (works, beats, talks) ── host a ⇄ host b ══ relay ══ internet: echo server, desk

Pauses are what both monitors say, the guest's gap is what its own beat says, and what its hosts have is counted before
and after.
"""

from __future__ import annotations

import gc
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from socket import socket

from tests.bench import course
from tests.bench.course import Json, Memory, Sample, felt, sampled
from tests.bench.figures import console, monitor_version
from tests.e2e.belongings import Belongings, belongings, grown
from tests.e2e.busy_guest import PROGRAM as BUSY_PROGRAM
from tests.e2e.engine_rig import END_OF_MOVE, LIMIT_S, RELAY, Rig, eventually, runner_package
from tests.e2e.scripted_guest import scripted_package
from tests.integration.wires import Place
from workers.domain.errors import Refused
from workers.domain.messages import BootOrder, StartOrder
from workers.domain.migration import MigrationPhase
from workers.domain.names import MigrationId, guest_address
from workers.ports import Forwarding
from workers.rehearsal import gaps, internet
from workers.rehearsal.gaps import Beat
from workers.rehearsal.job import witness
from workers.rehearsal.pulse import Pulse, watched_machine
from workers.relay.network import RelayNetwork
from workers.relay.server import Forwarder

INTERNET, RELAY_PUBLIC, CONTROL_PUBLIC = "198.18.0.10", "198.18.0.3", "198.18.0.2/32"
ECHO_PORT, DESK_PORT, NUMBER = 7000, 7001, 1
GUEST_PROGRAM = Path(__file__).with_name("moving_program.py")
FILES = (GUEST_PROGRAM, BUSY_PROGRAM, Path(witness.__file__))
# As busy as the guest of the other benchmarks; each round is checked at its end.
WORK = json.dumps({"seconds": 15.0, "memory_mib": 16, "disk_mib": 16, "pace_s": 0.25})
# Pauses lie further apart than the windows in which the guest's clock is compared with the echo server's.
REST_S = 3.0
# A guest that is never moved: eight windows of two seconds for the gaps that it has anyway, clear of the first move.
QUIET_S = 16.0 + gaps.CLEAR_S
# The first visits leave what stays: the package's stock, a line in the journal.
VISITS = 2
END_LIMIT_S = 180.0
ABORTED_MAX = 5


@dataclass
class Moving:
    """One guest, where it is, and what its moves took."""

    rig: Rig
    relay: Place
    internet: Place
    forwarder: Forwarder
    order: BootOrder
    host: str = "a"
    attempts: int = 0
    aborted: list[str] = field(default_factory=list)
    """Why a move was given up; the guest stayed where it was."""

    def start(self) -> None:
        """Boot it and give it its work."""
        self._point()
        engine, inside = self.rig["a"].engine, self.rig["a"].inside
        inside.run(engine.boot(self.order))
        inside.run(engine.start_runner(self.order.runner_id, StartOrder(1, _script())))

    def move(self) -> Sample | None:
        """Move it to the other host; None if the move was aborted. Raises `Refused` if too many were."""
        rows, target = self.rig.rows, "b" if self.host == "a" else "a"
        self.attempts += 1
        row = self.rig.begin(self.order, self.host, target, self.attempts)
        if rows.wait(row.id, MigrationPhase.COMMITTED, *END_OF_MOVE).phase is MigrationPhase.ABORTED:
            self._give_up(row.id)
            return None
        self.order, self.host = replace(self.order, epoch=row.epoch), target
        self._point()
        rows.wait(row.id, *END_OF_MOVE)
        self.rig.settle(self.order.runner_id)
        figures = rows.figures_of[row.id]
        eventually(
            lambda: "memory_mib_sent" in figures and "resumed_at" in figures, "both sides have said their figures"
        )
        return sampled(figures)

    def _give_up(self, key: MigrationId) -> None:
        self.rig.settle(self.order.runner_id)
        self.aborted.append(f"move {self.attempts} ({key}): {'; '.join(self.rig.rows.reasons[-2:])}")
        console.print(f"  {self.aborted[-1]}")
        if len(self.aborted) > ABORTED_MAX:
            raise Refused(f"more than {ABORTED_MAX} moves were aborted; is this machine too busy?")

    def belongings(self) -> Belongings:
        return belongings(self.rig, self.relay)

    def memory(self) -> Memory:
        """Return what this process, in which both daemons are, and the guest's monitor hold."""
        gc.collect()
        held = _resident_mib(self.rig[self.host].pid(self.order.runner_id))
        guest = max(held.values(), key=lambda one: one[0])[1]
        ours = sum(resident for _, resident in _resident_mib(os.getpid()).values())
        return Memory(round(ours, 1), round(sum(resident for _, resident in held.values()) - guest, 1), round(guest, 1))

    def _point(self) -> None:
        entry = Forwarding(self.order.runner_id, self.order.epoch, guest_address(NUMBER), self.rig[self.host].address)
        self.relay.call(self.forwarder.point, entry)


def _resident_mib(pid: int) -> dict[str, tuple[int, float]]:
    """Return for each mapping its size in KiB and what of it is in memory in MiB."""
    text = Path(f"/proc/{pid}/smaps").read_text()
    pattern = r"^([0-9a-f]+-[0-9a-f]+) .*?^Size: +(\d+) kB.*?^Rss: +(\d+) kB"
    found = re.finditer(pattern, text, re.MULTILINE | re.DOTALL)
    return {one[1]: (int(one[2]), int(one[3]) / 1024) for one in found}


def _script() -> str:
    """What the guest is to run: the files, and how they begin."""
    texts = {path.name: path.read_text() for path in FILES}
    told = (INTERNET, str(ECHO_PORT), str(DESK_PORT), WORK)
    return (
        "import os, pathlib, sys, tempfile\n"
        "folder = tempfile.mkdtemp()\n"
        f"for name, text in {texts!r}.items():\n"
        "    (pathlib.Path(folder) / name).write_text(text)\n"
        f"os.execv(sys.executable, [sys.executable, f'{{folder}}/{GUEST_PROGRAM.name}', folder, *{told!r}])\n"
    )


@contextmanager
def opened() -> Iterator[tuple[Moving, socket]]:
    """Make two hosts, the relay, and an internet with an echo server and a desk; nothing of it is left in the end."""
    with ExitStack() as ends:
        rig = Rig(scripted_package(runner_package()))
        ends.callback(rig.end)
        relay = rig._site.add("relay", eth0=f"underlay {RELAY}/24", eth1=f"internet {RELAY_PUBLIC}/24")
        net = rig._site.add("net", eth0=f"internet {INTERNET}/24")
        folder = Path(ends.enter_context(tempfile.TemporaryDirectory()))
        forwarder = relay.call(Forwarder, RelayNetwork(RELAY, "eth1", (CONTROL_PUBLIC,)), folder / "forwarding.json")
        ends.enter_context(_echo_server(net))
        desk = ends.enter_context(closing(net.listen(INTERNET, DESK_PORT)))
        desk.settimeout(LIMIT_S)
        yield Moving(rig, relay, net, forwarder, rig.order(NUMBER)), desk


@contextmanager
def _echo_server(place: Place) -> Iterator[None]:
    """Serve echoes from a process of its own, which the daemons in this one cannot hold up."""
    command = [sys.executable, "-m", internet.__name__, "--listen", f"{INTERNET}:{ECHO_PORT}"]
    server = place.call(partial(subprocess.Popen, stdin=subprocess.DEVNULL), command)
    try:
        eventually(lambda: _is_listening(place), "the echo server listens")
        yield
    finally:
        server.terminate()
        server.wait(LIMIT_S)


def _is_listening(place: Place) -> bool:
    try:
        place.connect(INTERNET, ECHO_PORT).close()
    except ConnectionRefusedError:
        return False
    return True


def rest(seconds: float) -> None:
    """Let the guest work."""
    threading.Event().wait(seconds)


def run(count: int) -> tuple[Json, bool]:
    """Move a guest so many times; return the report, and whether nothing grew and the guest found nothing wrong."""
    load = os.getloadavg()[0]
    with watched_machine() as pulse, opened() as (moving, desk):
        moving.start()
        guest, _ = desk.accept()
        with closing(guest):
            console.print("the guest works, and is not moved yet")
            rest(QUIET_S)
            visits = _moved(moving, VISITS)
            before, held = moving.belongings(), moving.memory()
            samples = _moved(moving, count)
            after, holds = moving.belongings(), moving.memory()
            rest(QUIET_S)
            told = _ended(guest)
        acceleration = moving.rig.unpacked.manifest.machine.acceleration
    report = reported(samples, visits, told, pulse) | {
        "qemu": monitor_version(),
        "acceleration": acceleration,
        "load": load,
        "aborted": moving.aborted,
        "grown": grown(before, after) + course.swollen(held, holds),
        "counted": {"before": _counted(before), "after": _counted(after)},
        "memory": {"before": asdict(held), "after": asdict(holds)},
    }
    _show(report)
    wrong = (report["grown"], report["aborted"], report["work"]["wrong"], report["connection"]["lost_messages"])
    return report, not any(wrong)


def _moved(moving: Moving, count: int) -> list[Sample]:
    """Move the guest so many times, with rests between."""
    samples: list[Sample] = []
    while len(samples) < count:
        if (sample := moving.move()) is not None:
            samples.append(sample)
            figures = ", ".join(
                f"{name} {getattr(sample, name):.1f}" for name in ("total_s", "stopped_ms", "commit_ms")
            )
            console.print(f"  move {moving.attempts}: {figures}")
        rest(REST_S)
    return samples


def _ended(guest: socket) -> Json:
    """Tell the guest that it is enough; return what it has found."""
    guest.settimeout(END_LIMIT_S)
    guest.sendall(b"!")
    said = b""
    while chunk := guest.recv(1 << 20):
        said += chunk
    told: Json = json.loads(said)
    return told


def reported(samples: list[Sample], visits: list[Sample], told: Json, pulse: Pulse) -> Json:
    """Put together what the monitors and the guest say."""
    beat = Beat.of(told["witness"])
    samples = [felt(sample, beat, pulse.stalls) for sample in samples]
    console.print(course.table(samples, f"{len(samples)} moves"))
    return {
        "moves": len(samples),
        **course.spread(samples),
        "guest_gap_baseline_ms": gaps.baseline(beat, [sample.stopped_at for sample in (*visits, *samples)]),
        "consecutive": course.consecutive(samples),
        "connection": {
            name: value for name, value in told["witness"]["connection"].items() if name != "clock_offsets_ms"
        },
        "work": {"rounds": told["rounds"], "wrong": told["wrong"]},
        "machine_stalls": len(pulse.stalls),
        "samples": [asdict(sample) for sample in samples],
    }


def _show(report: Json) -> None:
    for name in (
        "guest_gap_baseline_ms",
        "consecutive",
        "memory",
        "connection",
        "work",
        "machine_stalls",
        "aborted",
        "grown",
    ):
        console.print(f"{name}: {report[name]}")


def _counted(found: Belongings) -> dict[str, int]:
    return {what: names.total() for what, names in found.items()}
