from __future__ import annotations

import mmap
import os
import threading
from pathlib import Path

import pytest

from workers.host.loads import Mapping, disk_mib, largest_mapping, memory_mib, vcpu_threads

SMAPS = """\
55d0c0000000-55d0c0200000 r-xp 00000000 08:01 1234                       /usr/bin/qemu-system-x86_64
Size:               2048 kB
Rss:                1024 kB
Anonymous:             8 kB
VmFlags: rd ex mr mw me
7f0000000000-7f0040000000 rw-p 00000000 08:01 77             /var/cache/spot-runner/unpacked/sha256-00/memory
Size:            1048576 kB
Rss:               63492 kB
Anonymous:          5136 kB
VmFlags: rd wr mr mw me
7f0100000000-7f0108000000 rwxp 00000000 00:00 0
Size:             131072 kB
Anonymous:         44000 kB
"""


def test_the_guests_memory_is_the_largest_mapping() -> None:
    assert largest_mapping(SMAPS) == Mapping(kib=1048576, written_kib=5136)
    assert largest_mapping("") is None


def _largest() -> int:
    """How much address space this process may have in one piece already."""
    mapping = largest_mapping(Path("/proc/self/smaps").read_text())
    return 0 if mapping is None else mapping.kib


def test_what_was_written_counts_and_untouched_memory_does_not() -> None:
    size = (_largest() << 10) + (64 << 20)
    fd = os.memfd_create("like-a-package")
    os.truncate(fd, size)
    os.pwrite(fd, b"x" * (8 << 20), 1 << 20)
    with mmap.mmap(fd, size, flags=mmap.MAP_PRIVATE) as memory:
        memory[40 << 20]
        assert memory_mib(os.getpid(), 8) == pytest.approx(8, abs=0.1)
        memory[32 << 20 : 36 << 20] = b"y" * (4 << 20)
        assert memory_mib(os.getpid(), 8) == pytest.approx(12, abs=0.1)
        assert memory_mib(os.getpid(), 1 << 20) == size / (1 << 20)
    os.close(fd)


def test_a_process_that_has_ended_has_no_memory_and_no_threads() -> None:
    gone = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(gone, 0)
    assert memory_mib(gone, 0) is None
    assert vcpu_threads(gone) == ()


def test_a_file_with_holes_counts_for_what_it_takes(tmp_path: Path) -> None:
    overlay = tmp_path / "disk"
    assert disk_mib(overlay) == 0
    overlay.write_bytes(b"x" * (1 << 20))
    os.truncate(overlay, 64 << 20)
    assert disk_mib(overlay) == pytest.approx(1, abs=0.1)


def test_the_processors_threads_are_found_by_their_name() -> None:
    found, stay = threading.Event(), threading.Event()

    def processor() -> None:
        Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text("CPU 0/TCG")
        found.set()
        stay.wait(10)

    thread = threading.Thread(target=processor)
    thread.start()
    found.wait(10)
    threads = vcpu_threads(os.getpid())
    stay.set()
    thread.join()
    assert threads == (thread.native_id,)
