"""What a job finds out in its guest, step by step, and what should come out: shell commands, and patterns for answers.

A step prints `FACT <name> <the last line of what the command said>` for each question; nothing is decided inside.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tests.packages.inputs import IMAGE_PATH, VARIABLE
from workers.host.archive import CONFIGURED_IN, FOLDER

MARKER: Final = "a-mark-on-the-disk-of-the-guest"
FACT: Final = re.compile(r"FACT (?P<name>[a-z_]+) (?P<value>.*)")
RUNNER: Final = f"/{FOLDER}"
# In a file system in memory, so that the search itself writes nothing secret to the disk.
PATTERNS: Final = "/dev/shm/patterns"  # noqa: S108 - the guest's


@dataclass(frozen=True)
class Question:
    """One thing to find out."""

    name: str
    command: str
    wanted: str
    """A pattern for the whole answer."""

    @property
    def script(self) -> str:
        return f"printf 'FACT {self.name} %s\\n' \"$( {{ {self.command}\n}} 2>&1 | tail -n 1 )\""


@dataclass(frozen=True)
class Step:
    """One step of the job."""

    name: str
    questions: Sequence[Question]
    before: str = ""
    """What is done first; the job fails if it does."""

    @property
    def script(self) -> str:
        return "\n".join(filter(None, [self.before, *(question.script for question in self.questions)]))


def _on_command_lines(patterns: str) -> str:
    return f"sudo -n cat /proc/[0-9]*/cmdline 2> /dev/null | tr '\\0' '\\n' | grep -cF -f {patterns}"


WHO: Final = Step(
    "who runs it",
    [
        Question("user", "id -un", "runner"),
        Question("home", 'echo "$HOME"', "/home/runner"),
        Question("sudo", "sudo -n id -un", "root"),
        Question("warmed_up_as", f"cat {RUNNER}/warmed-up", r"[1-9]\d*"),
    ],
)
# What programs take for granted, whoever was the first process of the guest.
SURROUNDINGS: Final = Step(
    "what it finds around it",
    [
        Question("temporary", "stat --format='%a %U' /tmp", "1777 root"),
        Question("shared_memory", "stat --format=%a /dev/shm", "1777"),
        Question("dev_fd", "cat <(echo through a pipe)", "through a pipe"),
        Question("open_files_max", "ulimit -H -n", "524288|1048576"),
        Question("own_name", 'grep -c "$(cat /proc/sys/kernel/hostname)" /etc/hosts', "1"),
        Question(
            "its_agent",
            "exec 3<> /dev/tcp/127.0.0.1/7707; printf 'GET /v1/runner HTTP/1.0\\r\\n\\r\\n' >&3; head -n 1 <&3",
            r"HTTP/1\.[01] 200 .*",
        ),
    ],
)
CONFIGURATION: Final = Step(
    "where its configuration is",
    [
        Question("credentials_link", f"readlink {RUNNER}/.credentials", f"{CONFIGURED_IN}/.credentials"),
        Question("credentials_on", f"stat --dereference --file-system --format=%T {RUNNER}/.credentials", "tmpfs"),
        Question("credentials_octets", f"stat --dereference --format=%s {RUNNER}/.credentials", r"[1-9]\d+"),
        Question("configuration_of", f"stat --format='%U %a' {CONFIGURED_IN}", "runner 700"),
    ],
)
# The whole configuration as the agent handed it over, which the first process of the runner program still has in its
# environment, and the secret in it as its own file has it. Without patterns nothing is found, so they are counted.
SECRECY: Final = Step(
    "what command lines show",
    [
        Question("patterns", f"grep -c .... {PATTERNS}", "2"),
        Question("command_lines_of_runner", _on_command_lines(f"{PATTERNS}.control"), r"[1-9]\d*"),
        Question("command_lines_with_configuration", _on_command_lines(PATTERNS), "0"),
    ],
    before=f"""\
umask 077
for one in /proc/[0-9]*/environ; do
    {{ tr '\\0' '\\n' < "$one" | sed -n 's/^ACTIONS_RUNNER_INPUT_JITCONFIG=//p'; }} 2> /dev/null || true
done | sort -u > {PATTERNS}
sed -n 's/.*"Secret": *"\\([^"]*\\)".*/\\1/p' {RUNNER}/.credentials >> {PATTERNS}
echo {RUNNER}/run.sh > {PATTERNS}.control""",
)
DOCKER: Final = Step(
    "Docker starts when it is asked",
    [
        Question("docker_socket", "stat --format=%F /run/docker.sock", "socket"),
        Question("docker_socket_unit", "systemctl is-active docker.socket", "active"),
        Question("docker_before", "systemctl is-active docker.service", "inactive"),
        Question("docker_server", "docker version --format '{{.Server.Version}}'", r"\d+\.\d+.*"),
        Question(
            "docker_driver", "docker info --format '{{.Driver}}, cgroup {{.CgroupVersion}}'", "overlay2, cgroup 2"
        ),
        Question("docker_after", "systemctl is-active docker.service", "active"),
    ],
)
# No registry is here, so the image is made of the guest's own shell.
CONTAINER: Final = Step(
    "a container runs",
    [
        Question(
            "container", "docker run --rm tried /bin/dash -c 'echo hello from $(hostname)'", "hello from [0-9a-f]+"
        ),
        Question(
            "container_resolver",
            "docker run --rm tried /bin/dash -c 'read -r line < /etc/resolv.conf; echo $line'",
            r"nameserver [\d.]+",
        ),
    ],
    before="""\
mkdir image
files="/bin/dash /bin/hostname"
cp --parents --dereference $files $(ldd $files | grep -o '/[^ :]*' | grep '\\.so' | sort -u) image
tar -C image -c . | docker import - tried > /dev/null""",
)
IMAGE: Final = Step(
    "what of the image is seen",
    [
        Question("image_variable", f'echo "${VARIABLE[0]}"', re.escape(VARIABLE[1])),
        Question("image_path", 'echo "$PATH"', re.escape(IMAGE_PATH)),
        Question("first_process", "sudo -n cat /proc/1/cmdline | tr '\\0' ' '", ".* -I -m guest_agent.init .*"),
        Question("no_python_of_its_own", "command -v python3 || echo none", "none"),
    ],
)
# The last step, so that all that was to be written to the disk is there when it is searched from outside.
DISK: Final = Step("the disk is written", [], before=f"echo {MARKER} > marker\nsync")
STEPS: Final[Mapping[str, Sequence[Step]]] = {
    "github-runner": (WHO, SURROUNDINGS, CONFIGURATION, SECRECY, DOCKER, CONTAINER, DISK),
    "oci": (WHO, SURROUNDINGS, CONFIGURATION, SECRECY, IMAGE, DISK),
}


def facts(lines: Iterable[str]) -> dict[str, str]:
    """Return what a job's log says."""
    found = (FACT.fullmatch(line) for line in lines)
    return {one["name"]: one["value"] for one in found if one}


def wrongs(steps: Iterable[Step], found: Mapping[str, str]) -> list[str]:
    """Return a sentence for each answer that is not as it should be, or is missing."""
    asked = [question for step in steps for question in step.questions]
    return [
        f"{one.name}: {found[one.name]!r} is not {one.wanted!r}" if one.name in found else f"{one.name}: no answer"
        for one in asked
        if not re.fullmatch(one.wanted, found.get(one.name, "\n"))
    ]
