"""Host classes as they are measured, with few flags, to be changed by `replace`."""

from __future__ import annotations

from dataclasses import replace

from workers.domain.host_class import Acceleration, HostClass, Processor, TscSource

EMULATED = HostClass(
    acceleration=Acceleration.TCG,
    architecture="x86_64",
    kernel="6.1.0-41-cloud-amd64",
    monitor="qemu",
    monitor_version="7.2",
    machines=("pc-q35-6.2", "pc-q35-7.0", "pc-q35-7.1", "pc-q35-7.2"),
    processor=Processor("AuthenticAMD", ("avx", "fpu", "la57", "sse4_2", "xsave"), ("x87", "sse", "avx"), 5),
    pinned=None,
    tsc_khz=2_793_440,
    tsc_source=TscSource.HOST,
)
PINNED = Processor("GenuineIntel", ("fpu", "sse4_2"), (), 4)
VIRTUALIZED = replace(
    EMULATED,
    acceleration=Acceleration.KVM,
    monitor_version="9.2",
    machines=("pc-q35-8.2", "pc-q35-9.0", "pc-q35-9.2"),
    processor=Processor("GenuineIntel", ("avx", "fpu", "sse4_2", "xsave"), ("x87", "sse", "avx"), 4),
    pinned=PINNED,
    tsc_source=TscSource.SCALED,
)
OF_ANOTHER_VENDOR = replace(VIRTUALIZED, processor=replace(VIRTUALIZED.processor, vendor="AuthenticAMD"))
