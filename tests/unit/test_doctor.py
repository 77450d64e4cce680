"""`spot-runner doctor` as a person runs it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from workers.bootstrap.doctor import CHECKS, Finding, Grade, found_by, redis_answers, run_doctor, runners_are_young
from workers.cli import app
from workers.domain.errors import Refused, Unreachable
from workers.settings import ControlSettings

TODAY = datetime.now(UTC).date()


def doctor(home: Path, **told: str) -> Result:
    settings = {
        "SPOT_RUNNER_HOME": str(home),
        "SPOT_RUNNER_REDIS_URL": "redis://127.0.0.1:1/0",
        "SPOT_RUNNER_MARKET_URL": "http://127.0.0.1:1",
        "SPOT_RUNNER_PACKAGE": f"sha256:{'0' * 64}",
        **told,
    }
    return CliRunner().invoke(app, ["doctor"], env=settings)


def test_each_check_says_one_sentence_and_errors_end_it_with_status_1(tmp_path: Path) -> None:
    found = doctor(tmp_path, SPOT_RUNNER_PACKAGE_RUNNER_RELEASED=str(TODAY - timedelta(days=15)))

    assert found.exit_code == 1, found.output
    lines = found.stdout.splitlines()
    assert {line.split()[1].rstrip(":") for line in lines} == {name for name, _ in CHECKS}
    assert "ok       store: it answers, and has 0 jobs that are not done" in lines
    assert any(line.startswith("error    redis: it does not answer (") for line in lines)
    assert any(line.startswith("error    github: there is no GitHub App yet; `spot-runner setup`") for line in lines)
    assert any(line.startswith("warning  packages: image debian-12: its runner program was released") for line in lines)
    assert "ok       pools: hosts may be bought for default" in lines


@pytest.mark.parametrize(
    ("days", "grade"), [(0, Grade.OK), (13, Grade.OK), (14, Grade.WARNING), (28, Grade.ERROR), (None, Grade.WARNING)]
)
def test_a_runner_program_s_age_is_told(tmp_path: Path, days: int | None, grade: Grade) -> None:
    released = None if days is None else TODAY - timedelta(days=days)
    settings = ControlSettings(home=tmp_path, package="sha256:00", package_runner_released=released)

    (finding,) = found_by(runners_are_young, settings)

    assert finding.grade is grade


def test_a_pools_file_tells_the_age_of_each_package(tmp_path: Path) -> None:
    package = '[[packages]]\nimage = "{}"\ndigest = "sha256:{}"\nvcpus = 1\nmemory_mib = 1024\ndisk_mib = 4096\n{}\n'
    old = package.format("old", "0" * 64, f"runner_released = {TODAY - timedelta(days=28)}")
    young = package.format("young", "1" * 64, f"runner_released = {TODAY}")
    (tmp_path / "pools.toml").write_text(old + young + '[[pools]]\nname = "ci"\n')

    found = found_by(runners_are_young, ControlSettings(home=tmp_path, pools_file=tmp_path / "pools.toml"))

    assert [finding.grade for finding in found] == [Grade.ERROR, Grade.OK]
    assert "image old was released on" in found[0].sentence


def test_a_store_that_cannot_be_read_is_an_error_of_that_check_alone(tmp_path: Path) -> None:
    (tmp_path / "spot-runner.sqlite").write_text("no database" * 100)

    found = doctor(tmp_path)

    assert any(line.startswith("error    store: ") for line in found.stdout.splitlines()), found.output
    assert any(" github: " in line for line in found.stdout.splitlines())


def test_an_address_that_is_none_is_said_so(tmp_path: Path) -> None:
    (finding,) = found_by(redis_answers, ControlSettings(home=tmp_path, redis_url="ftp://x"))

    assert (finding.grade, "set SPOT_RUNNER_REDIS_URL" in finding.sentence) == (Grade.ERROR, True)


def test_a_region_that_there_is_not_is_named_before_anything_is_asked(tmp_path: Path) -> None:
    found = doctor(
        tmp_path,
        SPOT_RUNNER_AWS_REGION="eu-nowhere-7",
        SPOT_RUNNER_AWS_SUBNETS='["subnet-1"]',
        SPOT_RUNNER_AWS_INSTANCE_TYPES='["m8i.large"]',
        SPOT_RUNNER_AWS_KVM_IMAGE="ami-1",
        SPOT_RUNNER_AWS_CONTROL_SOURCE="10.0.9.0/24",
    )

    (line,) = (line for line in found.stdout.splitlines() if " cloud: " in line)
    assert line.startswith("error    cloud: aws_region: 'eu-nowhere-7' is no region that boto3 knows; name one such as")


def test_the_local_market_is_asked_for_nothing_but_what_it_has(tmp_path: Path) -> None:
    (line,) = (line for line in doctor(tmp_path).stdout.splitlines() if " cloud: " in line)

    assert line.startswith("error    cloud: ")
    assert line.endswith("; it may pass, so look again")


def _refused(_: ControlSettings) -> Iterator[Finding]:
    yield Finding(Grade.OK, "so far")
    raise Refused("the key is\nwrong; make another")


def _unreachable(_: ControlSettings) -> Iterator[Finding]:
    yield from ()
    raise Unreachable("no answer")


def _warning(_: ControlSettings) -> Iterator[Finding]:
    yield Finding(Grade.WARNING, "soon")


def test_what_a_check_raises_is_its_error_on_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ControlSettings(home=tmp_path)

    assert run_doctor(settings, [("a", _refused), ("b", _unreachable)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "ok       a: so far",
        "error    a: the key is wrong; make another",
        "error    b: no answer; it may pass, so look again",
    ]


def test_warnings_alone_are_well(tmp_path: Path) -> None:
    assert run_doctor(ControlSettings(home=tmp_path), [("a", _warning)]) == 0
