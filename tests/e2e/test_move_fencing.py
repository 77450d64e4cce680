"""A move is between its two hosts: nobody else gets a byte of it, and after the commit the source is no host of it.

One rig, two engines; host a has the guest. What is shown by a stranger is shown from the peer's own address, so that it
is the certificate that is refused and not the packet.
"""

from __future__ import annotations

import hashlib
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest

from tests.e2e.busy_guest import busy_script
from tests.e2e.engine_rig import END_OF_MOVE, EngineHost, Rig, eventually, runner_package
from tests.e2e.scripted_guest import scripted_package
from workers.domain.errors import TryLater
from workers.domain.messages import BootOrder, MonitorState, RegistrationAnswer, StartOrder
from workers.domain.migration import Migration, MigrationPhase, Said
from workers.domain.names import HostId, MigrationId, move_name
from workers.host.tls import MoveKeys, readable_keys
from workers.identity import Authority, make_csr

pytestmark = [pytest.mark.root, pytest.mark.guest, pytest.mark.timeout(600)]
COMMITTED, FINISHED, ABORTED = MigrationPhase.COMMITTED, MigrationPhase.FINISHED, MigrationPhase.ABORTED
MIB = 1 << 20
FOREIGN = "of another deployment"

Sign = Callable[[str, HostId, str, MigrationId], str]
"""From a request, a host, its address and a migration to a certificate."""


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    rig = Rig(scripted_package(runner_package()), ("a", "b"))
    yield rig
    rig.end()


@pytest.fixture
def order(rig: Rig, request: pytest.FixtureRequest) -> Iterator[BootOrder]:
    """A guest on host a; each test its own runner, since one that is gone stays gone."""
    order = rig.order(600 + request.session.items.index(request.node))
    rig["a"].inside.run(rig["a"].engine.boot(order))
    yield order
    for trouble in (rig.rows.lost, rig.rows.unanswered, rig.rows.deaf, rig.rows.forged):
        trouble.clear()
    for row in rig.rows.of(order.runner_id):
        if row.phase not in END_OF_MOVE | {COMMITTED}:
            rig.rows.abort(row.id)
    rig.settle(order.runner_id)
    for host in rig.hosts.values():
        report = host.report(order.runner_id)
        host.inside.run(host.engine.stop(order.runner_id, report.epoch if report else 9))


# ---------------------------------------------------------------- what is shown instead of the right certificate


@dataclass(frozen=True)
class Back:
    """A clock that is behind."""

    by: timedelta

    def now(self) -> datetime:
        return datetime.now(UTC) - self.by


def forgeries(rig: Rig) -> dict[str, Sign]:
    """Certificates that are not this host's for this move, by what is wrong with them."""
    ours = rig.authority
    foreign = Authority.open(rig.home / "foreign-ca")
    earlier = Authority.open(rig.home / "ca", Back(timedelta(hours=1)))
    return {
        FOREIGN: lambda csr, host, _, move: foreign.move_certificate(csr, host, move),
        "expired": lambda csr, host, _, move: earlier.move_certificate(csr, host, move),
        "of a third host": lambda csr, _, __, move: ours.move_certificate(csr, HostId("spot-host-third"), move),
        "of another move": lambda csr, host, _, __: ours.move_certificate(csr, host, MigrationId("spot-move-other")),
        "of the host itself": lambda csr, host, address, _: ours.host_certificate(csr, host, address),
        "of a third host itself": lambda csr, _, address, __: ours.host_certificate(
            csr, HostId("spot-host-t"), address
        ),
    }


def _keys(rig: Rig, sign: Sign, host: EngineHost, move: MigrationId) -> MoveKeys:
    key, request = make_csr(host.id)
    return MoveKeys(key, sign(request, host.id, host.address, move), rig.authority.hosts_ca)


def _right(rig: Rig) -> Sign:
    return lambda csr, host, _, move: rig.authority.move_certificate(csr, host, move)


# ---------------------------------------------------------------- nobody else gets a byte


def test_only_the_source_of_this_move_gets_in_by_either_port(rig: Rig, order: BootOrder) -> None:
    for attempt, (name, sign) in enumerate(forgeries(rig).items(), start=1):
        row = rig.listen(order, "a", "b", attempt)
        refused = _disk_seen(rig, row, _keys(rig, sign, rig["a"], row.id))
        assert refused.returncode != 0, f"a certificate {name} opens the disk"
        assert "image: " not in refused.stdout
        assert _is_hung_up_on(rig, row, _keys(rig, sign, rig["a"], row.id)), f"a certificate {name} opens the memory"
        rig.rows.abort(row.id)
        rig.settle(order.runner_id)
    row = rig.listen(order, "a", "b", attempt + 1)
    assert _disk_seen(rig, row, None).returncode != 0, "the disk is open without TLS"
    admitted = _disk_seen(rig, row, _keys(rig, _right(rig), rig["a"], row.id))
    assert admitted.returncode == 0, f"not even the peer gets in: {admitted.stderr}"
    assert not _is_hung_up_on(rig, row, _keys(rig, _right(rig), rig["a"], row.id))
    rig.rows.abort(row.id)


def _disk_seen(rig: Rig, row: Migration, keys: MoveKeys | None) -> subprocess.CompletedProcess[str]:
    """Let host a's namespace ask for the target's export; QEMU's own look at the certificate is left out."""
    assert row.ports is not None
    place = f"driver=nbd,host={rig['b'].address},port={row.ports.disk},export=disk"
    if keys is None:
        return _inside(rig, "qemu-img", "info", "--image-opts", place)
    with readable_keys(keys, rig.home, 0) as directory:
        tls = f"tls-creds-x509,id=t,dir={directory},endpoint=client,sanity-check=off"
        name = move_name(rig["b"].id, row.id)
        options = f"{place},tls-creds=t,tls-hostname={name}"
        return _inside(rig, "qemu-img", "info", "--object", tls, "--image-opts", options)


def _inside(rig: Rig, *command: str) -> subprocess.CompletedProcess[str]:
    whole = ("ip", "netns", "exec", rig["a"].place.name, *command)
    return subprocess.run(whole, check=False, capture_output=True, text=True, timeout=60)


def _is_hung_up_on(rig: Rig, row: Migration, keys: MoveKeys) -> bool:
    assert row.ports is not None
    with readable_keys(keys, rig.home, 0) as directory:
        trusting = ssl.create_default_context(cafile=str(directory / "ca-cert.pem"))
        trusting.load_cert_chain(directory / "client-cert.pem", directory / "client-key.pem")
    name, place = move_name(rig["b"].id, row.id), (rig["b"].address, row.ports.memory)
    hung_up: bool = rig["a"].place.call(_hangs_up, trusting, place, name)
    return hung_up


def _hangs_up(trusting: ssl.SSLContext, place: tuple[str, int], name: str) -> bool:
    """Say whether the other side ends the connection; one that waits for our first word is still there after 2 s."""
    with socket.create_connection(place, timeout=30) as plain:
        try:
            with trusting.wrap_socket(plain, server_hostname=name) as secured:
                secured.settimeout(2)
                return secured.recv(1) == b""
        except TimeoutError:
            return False
        except (ssl.SSLError, ConnectionError):
            return True


def test_a_source_gives_nothing_to_whoever_answers_in_its_target_s_place(rig: Rig, order: BootOrder) -> None:
    target = rig["b"]
    for attempt, (name, sign) in enumerate(forgeries(rig).items(), start=1):
        if name == "expired":
            continue  # the impostor's own QEMU would refuse to show it
        rig.rows.reasons.clear()
        rig.rows.forged[target.id] = _forging(rig, name, sign)
        row = rig.begin(order, "a", "b", attempt)
        assert rig.rows.wait(row.id, *END_OF_MOVE).phase is ABORTED, f"a certificate {name} gets the guest"
        assert any("certificate" in reason.lower() for reason in rig.rows.reasons), rig.rows.reasons
        rig.settle(order.runner_id)
        report = rig["a"].report(order.runner_id)
        assert report is not None
        assert (report.monitor, report.epoch) == (MonitorState.RUNNING, 1)


def _forging(rig: Rig, name: str, sign: Sign) -> Callable[[str, MigrationId], RegistrationAnswer]:
    """Let host b show this; it trusts what it shows, or its own QEMU would not have it."""
    host = rig["b"]
    issuer = Authority.open(rig.home / ("foreign-ca" if name == FOREIGN else "ca")).hosts_ca
    return lambda csr, move: RegistrationAnswer(sign(csr, host.id, host.address, move), "", issuer)


def test_a_stranger_is_not_even_let_in(rig: Rig, order: BootOrder) -> None:
    """The ports are open to the peer's address alone, and nothing else listens there; host a is the stranger here."""
    row = rig.plan(order, "a", "b")
    move = rig.move_order(order, row, rig["a"])
    before = _listening(rig["b"])
    ports = rig["b"].inside.run(rig["b"].engine.receive(replace(move, peer_address="10.90.0.99")))
    assert ports is not None
    assert _listening(rig["b"]) - before == {ports.memory, ports.disk}
    for port in (ports.memory, ports.disk):
        with pytest.raises((TimeoutError, ConnectionError)):
            rig["a"].place.connect(rig["b"].address, port, 1.0)
    rig.rows.abort(row.id)
    rig.settle(order.runner_id)
    assert _listening(rig["b"]) == before


def _listening(host: EngineHost) -> set[int]:
    command = ("ip", "netns", "exec", host.place.name, "ss", "-Hltn")
    lines = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout.splitlines()
    return {int(line.split()[3].rpartition(":")[2]) for line in lines}


def test_what_goes_over_the_line_says_nothing_of_the_guest(rig: Rig, order: BootOrder) -> None:
    """It writes blocks that we know, so that they are in its memory and on its disk, and nowhere on the wire."""
    work = {"seconds": 60.0, "memory_mib": 1, "disk_mib": 16}
    rig["a"].inside.run(rig["a"].engine.start_runner(order.runner_id, StartOrder(1, busy_script(**work))))
    written = [hashlib.sha256(str(number).encode()).digest() * 2 for number in range(16)]
    overlay = rig["a"].microvm(order.runner_id).directory / "disk.qcow2"
    eventually(lambda: written[-1] in overlay.read_bytes(), "the guest has written its blocks")
    with eavesdropping(rig["b"], written) as heard:
        row = rig.begin(order, "a", "b")
        assert rig.rows.wait(row.id, *END_OF_MOVE).phase is FINISHED
    assert heard.octets > 30 * MIB, "that was no whole guest"
    assert heard.frames_with_words == 0


@dataclass
class Heard:
    """What somebody on the line has heard."""

    octets: int = 0
    frames_with_words: int = 0


@contextmanager
def eavesdropping(host: EngineHost, words: list[bytes]) -> Iterator[Heard]:
    """Listen to all that comes to a host while the block lasts."""
    heard, is_over = Heard(), threading.Event()

    def listen() -> None:
        while not is_over.is_set():
            with suppress(TimeoutError):
                frame = ear.recv(1 << 17)
                heard.octets += len(frame)
                heard.frames_with_words += any(word in frame for word in words)

    with host.place.sniff("eth0") as ear:
        ear.settimeout(0.2)
        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield heard
        finally:
            is_over.set()
            thread.join(60)


# ---------------------------------------------------------------- after the commit there is only forward


def test_without_any_control_plane_the_source_never_runs_what_was_committed(rig: Rig, order: BootOrder) -> None:
    """From the commit on nobody reaches the row: the target runs on, the source stands still whatever happens to it."""
    row = _committed_in_silence(rig, order)
    source, runner = rig["a"], order.runner_id
    for word in (Said.ABORTED, None):  # a restarted daemon only asks, and does not even wish
        _stands_still_beyond_its_limits(rig, source, order, word)
        with pytest.raises(TryLater, match="not decided"):
            source.inside.run(source.engine.stop(runner, 1))
        with pytest.raises(TryLater, match="being moved"):
            source.inside.run(source.engine.start_runner(runner, StartOrder(1, "{}")))
        source.inside.run(source.engine.boot(order))  # it is there already, so this does nothing
        source.inside.run(source.engine.send(rig.move_order(order, row, rig["b"])))
        assert source.inside.run(source.microvm(runner).qemu.status()) == "postmigrate"
        assert rig["b"].call(runner, "RunnerStatus")
        source.restart()
    rig.rows.deaf.clear()
    rig.rows.wait(row.id, FINISHED)
    rig.settle(runner)
    assert source.report(runner) is None
    assert rig["b"].call(runner, "RunnerStatus")


def _committed_in_silence(rig: Rig, order: BootOrder) -> Migration:
    """Commit, let the target hear of it, and cut both hosts off from the control plane."""
    rig.rows.lost.add(Said.COMMITTED)
    row = rig.begin(order, "a", "b")
    rig.rows.wait(row.id, MigrationPhase.PAUSED)
    rig.rows.deaf.add(rig["a"].id)
    rig.rows.lost.clear()
    rig.rows.wait(row.id, COMMITTED)
    eventually(lambda: _runs(rig["b"], order), "the target runs the guest")
    rig.rows.deaf.add(rig["b"].id)
    return rig.rows.get(row.id)


def _runs(host: EngineHost, order: BootOrder) -> bool:
    report = host.report(order.runner_id)
    return report is not None and report.monitor is MonitorState.RUNNING


def _stands_still_beyond_its_limits(rig: Rig, source: EngineHost, order: BootOrder, word: Said | None) -> None:
    """Wait until it has said its word many times in vain: an abort is asked for only when its longest limit is over."""
    rig.rows.unheard.clear()
    eventually(lambda: rig.rows.unheard.count((source.id, word)) > 20, "the source has lost its patience")
    report = source.report(order.runner_id)
    assert report is not None
    assert report.monitor is MonitorState.PAUSED
