"""`./dev bench package`: a package from the object store onto a host, beside `zstd -d` of the same file.

    real receiver (TLS, signed URLs, its directory as the store) ─▶ Fetcher ─▶ verified file      each a process
    the same file ─▶ zstd -d ─▶ file                                                    in turn

The receiver is on this same machine and takes its processor time from the fetch; with S3 that is another's. So the
processor time of each side stands beside what the clock says.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, BinaryIO, Final

import zstandard
from rich.table import Table

from tests.bench.figures import console
from tests.contract.store_rows import a_host
from tests.integration.control_plane import SPOT_RUNNER, ControlPlane, a_control_plane, children_of, eventually
from workers.clock import SystemClock
from workers.domain.names import HostId, PackageDigest
from workers.host.control import ControlClient
from workers.host.fetching import Fetcher
from workers.host.packages import PackageShelf
from workers.host.packing import LEVEL
from workers.host.publishing import publish
from workers.host.transfers import Transfers
from workers.identity import Authority, Leaf, make_csr, write_leaf
from workers.objects import DirectoryObjects

HOST: Final = HostId("spot-host-bench")
MIB: Final = 1 << 20
WANTED: Final = 0.7
LIMIT_S: Final = 1800.0


@dataclass(frozen=True)
class Run:
    """One side, once."""

    wall_s: float
    cpu_s: float
    """User and system, of this side's own process."""


def main(arguments: Sequence[str]) -> int:
    """Measure, print and write the report; 1 if a fetched package was not what was published."""
    wanted = argparse.ArgumentParser(prog="./dev bench package", description=__doc__)
    wanted.add_argument("--json", type=Path, metavar="FILE", help="where to write the report")
    wanted.add_argument("--mib", type=int, default=1024, help="size of the package, as it is stored")
    wanted.add_argument("--rounds", type=int, default=5, help="how often both sides are measured")
    wanted.add_argument("--package", type=Path, metavar="FILE", help="measure this one; else one is made of /usr")
    wanted.add_argument("--fetch", nargs=2, help=argparse.SUPPRESS)
    options = wanted.parse_args(arguments)
    if options.fetch is not None:
        return _fetch_alone(Path(options.fetch[0]), options.fetch[1])
    with tempfile.TemporaryDirectory(prefix="bench-package-") as place:
        report = _measure(Path(place), options.package, options.mib, options.rounds)
    _show(report)
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=1))
    return 0


def _measure(place: Path, given: Path | None, mib: int, rounds: int) -> dict[str, Any]:
    file = place / "made"
    if given is None:
        console.print(f"making a package of {mib} MiB out of /usr")
        _make(file, mib * MIB)
    else:
        shutil.copyfile(given, file)
    digest = PackageDigest(f"sha256:{_sha256(file)}")
    plane = a_control_plane(place)
    with plane.running("serve", *SPOT_RUNNER, "serve") as serving:
        eventually(plane.is_serving, LIMIT_S)
        _prepare(place, plane, file, digest)
        fetches, unpackings, served = list[Run](), list[Run](), list[float]()
        for _ in range(rounds):
            before = _cpu_of(serving.pid)
            fetches.append(_fetched(place, plane, digest, file))
            served.append(_cpu_of(serving.pid) - before)
            unpackings.append(_unpacked(file, place / "plain"))
    return {
        "package_mib": round(file.stat().st_size / MIB, 1),
        "rounds": rounds,
        "fetch": [asdict(one) for one in fetches],
        "receiver_cpu_s": served,
        "zstd": [asdict(one) for one in unpackings],
        "fetch_mib_s": file.stat().st_size / MIB / median(one.wall_s for one in fetches),
        "ratio": median(zstd.wall_s / ours.wall_s for ours, zstd in zip(fetches, unpackings, strict=True)),
        "cpu_ratio": median(zstd.cpu_s / ours.cpu_s for ours, zstd in zip(fetches, unpackings, strict=True)),
        "wanted_ratio": WANTED,
        "load": os.getloadavg(),
        "processors": os.cpu_count(),
    }


def _prepare(place: Path, plane: ControlPlane, file: Path, digest: PackageDigest) -> None:
    """Publish the package, and let there be a host that may fetch it."""
    clock = SystemClock()
    objects = DirectoryObjects.open(plane.home / "objects", plane.home / "objects.key", clock)
    publish(file, digest, objects)
    plane.store().hosts.add(a_host(HOST))
    authority = Authority.open(plane.home / "ca")
    key, csr = make_csr(HOST)
    leaf = Leaf(authority.host_certificate(csr, HOST, "127.0.0.1"), key)
    write_leaf(place / "identity", leaf, authority.control_ca, authority.hosts_ca)


def _fetched(place: Path, plane: ControlPlane, digest: PackageDigest, file: Path) -> Run:
    """Fetch in a process of its own, as a daemon does, and hold what came against the file."""
    store = place / "store"
    shutil.rmtree(store, ignore_errors=True)
    command = (sys.executable, "-m", "tests.bench", "package", "--fetch", str(place), f"{plane.host_url} {digest}")
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=LIMIT_S).stdout
    run = Run(**json.loads(said.splitlines()[-1]))
    got = PackageShelf(store, store).path(digest)
    if subprocess.run(["cmp", str(got), str(file)], check=False).returncode:
        sys.exit("what was fetched is not what was published")
    return run


def _fetch_alone(place: Path, told: str) -> int:
    url, digest = told.split()
    identity, store = place / "identity", place / "store"
    fetcher = Fetcher(store, ControlClient(url, identity), Transfers(url, identity))
    wanted = PackageDigest(digest)
    target = PackageShelf(store, store).path(wanted)
    run = _timed(lambda: asyncio.run(fetcher.fetch(wanted, target)), resource.RUSAGE_SELF)
    print(json.dumps(asdict(run)))  # noqa: T201 for the process that started us
    return 0


def _unpacked(file: Path, plain: Path) -> Run:
    """Let zstd unpack it onto the same disk."""
    command = ("zstd", "-d", "-q", "-f", str(file), "-o", str(plain))
    run = _timed(lambda: subprocess.run(command, check=True, timeout=LIMIT_S), resource.RUSAGE_CHILDREN)
    plain.unlink()
    return run


def _timed(work: Callable[[], object], whose: int) -> Run:
    before, began = resource.getrusage(whose), time.monotonic()
    work()
    wall_s, after = time.monotonic() - began, resource.getrusage(whose)
    return Run(wall_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def _cpu_of(pid: int) -> float:
    """Return the processor time of a process and all that it has started, in seconds."""
    ticks = 0
    for one in {pid} | children_of(pid):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _make(file: Path, size: int) -> None:
    """Write so many bytes, compressed as packages are, of what a machine's disk holds."""
    compressor = zstandard.ZstdCompressor(level=LEVEL, threads=-1, write_checksum=True)
    with file.open("wb") as target, compressor.stream_writer(target) as frame:
        while file.stat().st_size < size:
            for piece in _contents(Path("/usr")):
                frame.write(piece)
                if file.stat().st_size >= size:
                    break


def _contents(root: Path) -> Iterator[bytes]:
    for directory, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            path = Path(directory, name)
            if path.is_file() and not path.is_symlink():
                with path.open("rb") as source:
                    yield from _pieces(source)


def _pieces(source: BinaryIO) -> Iterator[bytes]:
    while piece := source.read(MIB):
        yield piece


def _sha256(file: Path) -> str:
    with file.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def _show(report: dict[str, Any]) -> None:
    table = Table(title=f"{report['package_mib']} MiB, median of {report['rounds']}")
    for column in ("", "wall s", "own processor s"):
        table.add_column(column)
    for name in ("fetch", "zstd"):
        walls, cpus = ([one[key] for one in report[name]] for key in ("wall_s", "cpu_s"))
        table.add_row(name, f"{median(walls):.2f}", f"{median(cpus):.2f}")
    table.add_row("receiver", "", f"{median(report['receiver_cpu_s']):.2f}")
    console.print(table)
    console.print(
        f"fetched and verified at {report['ratio']:.2f} x the speed of zstd -d (wanted: {WANTED}), by processor time "
        f"{report['cpu_ratio']:.2f} x; {report['fetch_mib_s']:.0f} MiB/s, load {report['load'][0]:.1f}",
        soft_wrap=True,
    )
