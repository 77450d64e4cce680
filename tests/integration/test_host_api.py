"""The host API over real TLS: who may call, what is refused, and that the control plane's own client fits."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from pydantic import TypeAdapter

from tests.fakes.classes import EMULATED
from tests.fakes.engine import PORTS, FakeEngine
from tests.integration.served import served
from workers.domain.errors import Refused, TryLater, Unfit, Unreachable
from workers.domain.host import Host, HostState
from workers.domain.messages import BootOrder, Heartbeat, MoveOrder, StartOrder
from workers.domain.names import HostId, MigrationId, PackageDigest, RunnerId, guest_address
from workers.domain.runner import Shape
from workers.host.daemon import ORDER_LIMIT_BYTES, make_host_app
from workers.host_client import HostClient
from workers.identity import Authority, Leaf, make_csr, write_leaf
from workers.listener import open_port

RUNNER = RunnerId("spot-runner-a")
ORDER = BootOrder(RUNNER, 3, 5, PackageDigest("sha256:" + "ab" * 32), Shape(1, 1024, 4096), guest_address(5))
MOVE = MoveOrder(MigrationId("spot-move-a"), replace(ORDER, epoch=4), HostId("spot-host-b"), "10.90.0.17", 60.0, 1)
BOOT, START, MOVING = TypeAdapter(BootOrder), TypeAdapter(StartOrder), TypeAdapter(MoveOrder)


@pytest.fixture(scope="module")
def identities(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("identities")
    authority, foreign = Authority.open(home / "ca"), Authority.open(home / "foreign-ca")
    ca = (authority.control_ca, authority.hosts_ca)
    for host in ("spot-host-a", "spot-host-b", "control"):
        key, csr = make_csr(HostId(host))
        certificate = authority.host_certificate(csr, HostId(host), "127.0.0.1")
        write_leaf(home / f"{host}-by-hosts", Leaf(certificate, key), *ca)
    for name in ("control", "relay"):
        write_leaf(home / name, authority.control_leaf(name), *ca)
    write_leaf(home / "foreign", foreign.control_leaf("control"), *ca)
    return home


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def port(engine: FakeEngine, identities: Path) -> Iterator[int]:
    def status() -> Heartbeat:
        return Heartbeat("boot", True, None, EMULATED, (ORDER.package,), engine.reports())

    with served(make_host_app(engine, status), identities / "spot-host-a-by-hosts") as port:
        yield port


def context(identities: Path, shown: str | None) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=identities / "control" / "hosts-ca.pem")
    if shown is not None:
        made.load_cert_chain(identities / shown / "certificate.pem", identities / shown / "key.pem")
    return made


def call(
    identities: Path, port: int, method: str, path: str, body: bytes | None = None, shown: str | None = "control"
) -> httpx.Response:
    with httpx.Client(verify=context(identities, shown), trust_env=False) as client:
        return client.request(
            method, f"https://127.0.0.1:{port}{path}", content=body, extensions={"sni_hostname": "spot-host-a"}
        )


@pytest.fixture
def client(identities: Path, port: int) -> Iterator[HostClient]:
    with closing(HostClient(identities / "control", port)) as made:
        yield made


HOST = Host(
    HostId("spot-host-a"),
    "local",
    HostState.READY,
    datetime(2026, 1, 1, tzinfo=UTC),
    Shape(8, 1, 1),
    address="127.0.0.1",
)


def test_the_control_planes_client_fits(client: HostClient, engine: FakeEngine) -> None:
    client.boot(HOST, ORDER)
    client.start_runner(HOST, RUNNER, 3, "secret")
    assert engine.configured == {RUNNER: "secret"}
    assert client.receive(HOST, MOVE) == PORTS
    client.send(HOST, replace(MOVE, ports=PORTS))
    assert engine.sending == [replace(MOVE, ports=PORTS)]
    client.stop(HOST, RUNNER, 3)
    client.stop(HOST, RUNNER, 3)
    assert engine.gone == {RUNNER: 3}


def test_status_is_a_heartbeat(identities: Path, port: int) -> None:
    answer = call(identities, port, "GET", "/v1/status")
    assert TypeAdapter(Heartbeat).validate_json(answer.content).boot_id == "boot"


def test_a_lower_epoch_is_never(client: HostClient) -> None:
    client.boot(HOST, ORDER)
    with pytest.raises(Refused, match=r"422.*epoch 3"):
        client.boot(HOST, replace(ORDER, epoch=2))
    with pytest.raises(Refused, match="422"):
        client.stop(HOST, RUNNER, 1)


def test_what_cannot_be_now_is_later(client: HostClient) -> None:
    with pytest.raises(TryLater, match=r"409.*not here yet"):
        client.start_runner(HOST, RUNNER, 3, "secret")


@pytest.mark.parametrize("shown", [None, "spot-host-b-by-hosts", "control-by-hosts", "foreign"])
def test_whoever_is_not_vouched_for_by_control_is_not_let_in(
    identities: Path, port: int, engine: FakeEngine, shown: str | None
) -> None:
    """Another host, even one that calls itself control, gives no orders here."""
    with pytest.raises(httpx.HTTPError):
        call(identities, port, "PUT", f"/v1/runners/{RUNNER}", BOOT.dump_json(ORDER), shown)
    assert not engine.booted


def test_another_part_of_the_control_plane_gives_no_orders(identities: Path, port: int, engine: FakeEngine) -> None:
    answer = call(identities, port, "PUT", f"/v1/runners/{RUNNER}", BOOT.dump_json(ORDER), "relay")
    assert (answer.status_code, answer.json()) == (403, {"error": "only control may call here"})
    assert not engine.booted


def test_plain_text_is_not_answered(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(b"GET /v1/status HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = b""
        with suppress(ConnectionError):
            answer = connection.recv(4096)
        assert not answer.startswith(b"HTTP")


def test_a_host_that_is_another_is_not_believed(identities: Path, port: int) -> None:
    """An address that was used before may have another owner now."""
    with closing(HostClient(identities / "control", port)) as client, pytest.raises(Unreachable, match="verify"):
        client.boot(replace(HOST, id=HostId("spot-host-b")), ORDER)


def broken(**changes: object) -> bytes:
    return json.dumps({**BOOT.dump_python(ORDER, mode="json"), **changes}).encode()


@pytest.mark.parametrize(
    ("body", "status", "sentence"),
    [
        (b"", 400, "JSON"),
        (b"\xff\xfe", 400, "JSON"),
        (b"[" * 5000, 400, "JSON"),
        (b"{}", 400, "runner_id"),
        (broken(epoch="3"), 400, "epoch"),
        (broken(epoch=None), 400, "epoch"),
        (broken(surprise=1), 400, "body.surprise: unknown field"),
        (broken(shape={"vcpus": 1, "memory_mib": 1, "disk_mib": 1, "gpus": 1}), 400, "body.shape.gpus"),
        (broken(runner_id="spot-runner-b"), 400, "runner_id: the body speaks of spot-runner-b"),
        (b" " * (ORDER_LIMIT_BYTES + 1), 413, "longer than"),
    ],
)
def test_a_bad_body_is_one_sentence_and_changes_nothing(
    identities: Path, port: int, engine: FakeEngine, body: bytes, status: int, sentence: str
) -> None:
    answer = call(identities, port, "PUT", f"/v1/runners/{RUNNER}", body)
    assert answer.status_code == status
    assert sentence in answer.json()["error"]
    assert not engine.booted


def test_a_body_without_end_is_cut_off(identities: Path, port: int) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(10000):
            yield b" " * 65536

    with httpx.Client(verify=context(identities, "control"), trust_env=False) as client:
        url = f"https://127.0.0.1:{port}/v1/runners/{RUNNER}"
        with suppress(httpx.HTTPError):  # it may be cut off before it has heard the answer
            answer = client.put(url, content=endless(), extensions={"sni_hostname": "spot-host-a"})
            assert answer.status_code == 413
    assert call(identities, port, "GET", "/v1/status").status_code == 200


@pytest.mark.parametrize("query", ["", "?epoch=", "?epoch=-1", "?epoch=x", "?epoch=1e3", "?epoch=99999999999"])
def test_a_stop_names_an_epoch(identities: Path, port: int, engine: FakeEngine, query: str) -> None:
    answer = call(identities, port, "DELETE", f"/v1/runners/{RUNNER}{query}")
    assert answer.status_code == 400
    assert "epoch" in answer.json()["error"]
    assert not engine.gone


def test_a_source_must_be_told_where_the_target_listens(identities: Path, port: int, engine: FakeEngine) -> None:
    answer = call(identities, port, "PUT", f"/v1/migrations/{MOVE.migration_id}/send", MOVING.dump_json(MOVE))
    assert (answer.status_code, answer.json()["error"].split(":")[0]) == (400, "ports")
    assert not engine.sending


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/v1/nothing", 404), ("GET", f"/v1/runners/{RUNNER}", 405)]
)
def test_unknown_calls_are_sentences_too(identities: Path, port: int, method: str, path: str, status: int) -> None:
    answer = call(identities, port, method, path)
    assert answer.status_code == status
    assert answer.json()["error"]


def test_a_taken_port_is_one_sentence() -> None:
    with closing(open_port("127.0.0.1", 0)) as first, pytest.raises(Unfit, match="end what listens there"):
        open_port("127.0.0.1", first.getsockname()[1])
