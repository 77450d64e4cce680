"""Makes a guest of somebody's image: what a guest needs is taken out of a Debian root that is made beside it.

    Debian's kernel modules · a Python of our own with the agent · the runner and its user · systemd, or our init

The image's own programs are used by jobs alone: the agent runs on Debian's Python and libraries below
/opt/spot-runner, whatever the image is made of.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from workers.domain.errors import BadInput
from workers.host.guest_files import NAMESERVERS, OURS, USER, entries, give, user_of
from workers.host.programs import run
from workers.host.roots import free_place, inside

RUNTIME: Final = f"{OURS}/runtime"
PYTHON: Final = f"/{RUNTIME}/python"
UNIT: Final = "etc/systemd/system/spot-runner-agent.service"
SYSTEMD: Final = ("/lib/systemd/systemd", "/usr/lib/systemd/systemd")
# Of what the recipe's files hold, what is as good for a stranger's root.
TAKEN: Final = (
    *("etc/fstab", NAMESERVERS, "etc/sudoers.d/runner"),
    *("etc/systemd/system.conf.d/spot-runner.conf", UNIT),
)
MASKED: Final = ("getty@tty1.service", "serial-getty@ttyS0.service", "console-getty.service", "getty.target")
FIRST_USER: Final = 1001
LOADER: Final = "/lib64/ld-linux-x86-64.so.2"
# Started by the loader, so that it is Debian's own whatever stands in the image's /lib.
START: Final = f"""#!/bin/sh
exec /{RUNTIME}/ld.so --library-path /{RUNTIME}/lib --argv0 /{RUNTIME}/bin/python3 /{RUNTIME}/bin/python3 "$@"
"""
INIT: Final = f"#!/bin/sh\nexec {PYTHON} -I -m guest_agent.init {PYTHON}\n"


def graft(debian: Path, root: Path, environment: Mapping[str, str]) -> None:
    """Make a guest's root of an image's, with what a finished Debian root has. Needs root; raises `BadInput`.

    `environment` is what the image's containers have; the runner program has it, too.
    """
    for name in ("dev", "proc", "sys", "run", "tmp", "var"):
        if inside(root, name) is None:
            free_place(root, Path(name)).mkdir()
            # Everybody's, as in every distribution: jobs do not run as root.
            (root / name).chmod(0o1777 if name == "tmp" else 0o755)
    _add_modules(debian, root)
    _copy(debian / OURS, free_place(root, Path(OURS)))
    _add_runtime(debian, root)
    _add_environment(root, environment)
    _add_user(debian, root)
    for name in TAKEN:
        shutil.copy2(debian / name, free_place(root, Path(name)))
    _add_init(root)
    free_place(root, Path("etc/machine-id")).write_text("")


def _copy(source: Path, target: Path) -> None:
    shutil.copytree(source, target, symlinks=True)


def _add_modules(debian: Path, root: Path) -> None:
    """Give the kernel its modules, wherever the image keeps /lib."""
    library = inside(root, "/lib") or free_place(root, Path("lib"))
    library.mkdir(exist_ok=True)
    if (library / "modules").is_symlink():
        raise BadInput("/lib/modules is a link in the root file system; it must be a folder of its own")
    shutil.rmtree(library / "modules", ignore_errors=True)
    _copy(debian / "usr/lib/modules", library / "modules")


def _add_runtime(debian: Path, root: Path) -> None:
    """Copy Debian's Python with every library that it, or one of its modules, needs."""
    runtime = root / RUNTIME
    (interpreter,) = (
        path for path in (debian / "usr/bin").glob("python3.*") if re.fullmatch(r"python3\.\d+", path.name)
    )
    (runtime / "bin").mkdir(parents=True)
    (runtime / "lib").mkdir()
    shutil.copy2(interpreter, runtime / "bin/python3")
    modules = runtime / "lib" / interpreter.name
    ignored = shutil.ignore_patterns("test", "lib2to3", "config-*", "sitecustomize.py")
    shutil.copytree(debian / "usr/lib" / interpreter.name, modules, symlinks=True, ignore=ignored)
    for path in _libraries(debian, interpreter):
        shutil.copy2(debian / path.relative_to("/"), runtime / "lib" / path.name)
    loader = inside(debian, LOADER)
    if loader is None:
        raise BadInput(f"the Debian root has no {LOADER}; the recipe's packages make none that the agent could use")
    shutil.copy2(loader, runtime / "ld.so")
    path = runtime / "lib/python3/dist-packages/spot-runner.pth"
    path.parent.mkdir(parents=True)
    path.write_text(f"/{OURS}\n")
    _script(runtime / "python", START)


def _libraries(debian: Path, interpreter: Path) -> set[Path]:
    dynamic = debian / "usr/lib" / interpreter.name / "lib-dynload"
    programs = [f"/{path.relative_to(debian)}" for path in (interpreter, *dynamic.glob("*.so"))]
    told = run(["chroot", str(debian), "ldd", *programs])
    return {Path(path) for path in re.findall(r"=> (/\S+)", told)}


def _add_environment(root: Path, environment: Mapping[str, str]) -> None:
    told = root / OURS / "runner.json"
    told.write_text(json.dumps(json.loads(told.read_text()) | {"environment": dict(environment)}))


def _add_user(debian: Path, root: Path) -> None:
    """Make the runner's user, or take the image's of that name; and give it what the Debian root has in its home."""
    try:
        uid, gid = user_of(root)
    except BadInput:
        uid = gid = _free_id(root)
        _append(root, "etc/passwd", f"{USER}:x:{uid}:{gid}::/home/{USER}:/bin/sh\n")
        _append(root, "etc/group", f"{USER}:x:{gid}:\n")
        if (root / "etc/shadow").exists():
            _append(root, "etc/shadow", f"{USER}:!:1::::::\n")
    home = free_place(root, Path("home", USER))
    _copy(debian / "home" / USER, home)
    give(home, uid, gid)


def _free_id(root: Path) -> int:
    taken: set[int] = set()
    for name in ("etc/passwd", "etc/group"):
        taken |= {int(number) for _, _, number, *_ in entries(root, name) if number.isdecimal()}
    return next(one for one in range(FIRST_USER, 60_000) if one not in taken)


def _append(root: Path, name: str, line: str) -> None:
    path = inside(root, name)
    before = "" if path is None else path.read_text(errors="surrogateescape")
    mode = 0o644 if path is None else path.stat().st_mode & 0o777
    written = free_place(root, Path(name))
    written.write_text(f"{before.rstrip()}\n{line}".lstrip(), errors="surrogateescape")
    written.chmod(mode)


def _add_init(root: Path) -> None:
    """Let systemd start the agent where there is one, and be the first process ourselves where there is none."""
    systemd = next((path for path in SYSTEMD if inside(root, path) is not None), None)
    init = inside(root, "/sbin") or root / "sbin"
    init.mkdir(exist_ok=True)
    init = free_place(init, Path("init"))
    if systemd is None:
        _script(init, INIT)
        return
    init.symlink_to(systemd)
    unit = root / UNIT
    unit.write_text(unit.read_text().replace("ExecStart=/usr/bin/python3 ", f"ExecStart={PYTHON} "))
    wanted = free_place(root, Path("etc/systemd/system/sysinit.target.wants/spot-runner-agent.service"))
    wanted.symlink_to("/etc/systemd/system/spot-runner-agent.service")
    for name in MASKED:
        free_place(root, Path("etc/systemd/system") / name).symlink_to("/dev/null")


def _script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)
