"""What `HostClient` does when certificates, addresses and answers are not as they should be."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from tests.contract.store_rows import CLASS, a_host
from tests.fakes.engine import FakeEngine
from tests.integration.listeners import PACKAGE
from tests.integration.served import served
from workers.domain.errors import Unreachable
from workers.domain.messages import Heartbeat
from workers.domain.names import HostId, RunnerId
from workers.host.daemon import make_host_app
from workers.host.transfers import Transfers
from workers.host_client import HostClient
from workers.identity import Authority, Leaf, make_csr, write_leaf

A = replace(a_host("spot-host-a"), address="127.0.0.1")
B = replace(a_host("spot-host-b"), address="127.0.0.1")
RUNNER = RunnerId("spot-runner-a")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.open(tmp_path / "ca")


@pytest.fixture
def own(tmp_path: Path, authority: Authority) -> Path:
    """The control plane's own certificate."""
    write_leaf(tmp_path / "own", authority.control_leaf("control"), authority.control_ca, authority.hosts_ca)
    return tmp_path / "own"


@pytest.fixture
def port(tmp_path: Path, authority: Authority) -> Iterator[int]:
    """The daemon of host a."""
    key, csr = make_csr(HostId("spot-host-a"))
    leaf = Leaf(authority.host_certificate(csr, HostId("spot-host-a"), "127.0.0.1"), key)
    write_leaf(tmp_path / "a", leaf, authority.control_ca, authority.hosts_ca)
    app = make_host_app(FakeEngine(), lambda: Heartbeat("boot", True, None, CLASS, (PACKAGE,), ()))
    with served(app, tmp_path / "a") as open_port:
        yield open_port


@pytest.fixture
def client(own: Path, port: int) -> Iterator[HostClient]:
    with closing(HostClient(own, port)) as made:
        yield made


def test_a_host_at_the_address_of_another_is_not_taken_for_it(client: HostClient) -> None:
    """Addresses are used again, and a connection that was checked for one host is kept alive."""
    client.stop(A, RUNNER, 1)
    with pytest.raises(Unreachable, match="spot-host-b"):
        client.stop(B, RUNNER, 1)
    client.stop(A, RUNNER, 1)


def test_a_renewed_certificate_is_shown_from_the_next_call_on(
    client: HostClient, own: Path, authority: Authority, tmp_path: Path
) -> None:
    client.stop(A, RUNNER, 1)
    foreign = Authority.open(tmp_path / "foreign")
    write_leaf(own, foreign.control_leaf("control"), authority.control_ca, authority.hosts_ca)
    with pytest.raises(Unreachable):
        client.stop(A, RUNNER, 1)
    write_leaf(own, authority.control_leaf("control"), authority.control_ca, authority.hosts_ca)
    client.stop(A, RUNNER, 1)


@pytest.mark.parametrize("spoiled", ["certificate.pem", "key.pem", "hosts-ca.pem"])
def test_a_certificate_that_cannot_be_used_now_is_for_later(own: Path, port: int, spoiled: str) -> None:
    (own / spoiled).unlink()
    with closing(HostClient(own, port)) as client, pytest.raises(Unreachable, match="certificate"):
        client.stop(A, RUNNER, 1)


def test_a_host_without_an_address_cannot_be_reached(client: HostClient) -> None:
    with pytest.raises(Unreachable, match="no address"):
        client.stop(replace(A, address=None), RUNNER, 1)


def test_a_host_that_takes_the_call_and_says_nothing_is_given_up(own: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        closing(HostClient(own, silent.getsockname()[1])) as client,
        pytest.raises(Unreachable, match="spot-host-a: DELETE https://127"),
    ):
        client.stop(A, RUNNER, 1)


def test_an_error_about_an_object_does_not_say_what_opens_it(own: Path) -> None:
    """It goes into logs and rows, and a signed URL is as good as a password."""
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        closing(Transfers(f"https://127.0.0.1:{silent.getsockname()[1]}", own)) as transfers,
        pytest.raises(Unreachable) as failed,
    ):
        transfers.put("/v1/objects/parks/spot-move-7/manifest?expires=1&signature=abc", b"content")
    assert "/v1/objects/parks/spot-move-7/manifest" in str(failed.value)
    assert "abc" not in str(failed.value)
