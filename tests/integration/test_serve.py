"""`spot-runner serve` as it runs: two gunicorns, real TLS, real client certificates, and its end."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from pydantic import TypeAdapter

from tests.contract.store_rows import a_host
from tests.integration.control_plane import (
    PATIENCE_S,
    SPOT_RUNNER,
    ControlPlane,
    a_control_plane,
    children_of,
    ended_at_last,
    eventually,
    is_alive,
)
from tests.integration.listeners import a_heartbeat, signed
from webhook.deliveries import BODY_LIMIT_BYTES
from workers.bootstrap.serve import check_free
from workers.domain.errors import Unfit
from workers.domain.host import HostState
from workers.domain.messages import Heartbeat, RegistrationAnswer, RegistrationRequest
from workers.domain.names import HostId
from workers.identity import Authority, Leaf, make_csr, write_leaf

H = HostId("spot-host-a")
PING = signed("ping", {"zen": "x"}, "guid-1")
HEARTBEAT = TypeAdapter(Heartbeat).dump_json(a_heartbeat())


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> ControlPlane:
    return a_control_plane(tmp_path_factory.mktemp("control"))


@pytest.fixture(scope="module")
def served(control: ControlPlane) -> Iterator[ControlPlane]:
    with control.serve():
        yield control


def context(control: ControlPlane, leaf: Leaf | None, directory: Path) -> ssl.SSLContext:
    """Trust the control plane, and show this certificate."""
    authority = Authority.open(control.home / "ca")
    trusting = ssl.create_default_context(cadata=authority.control_ca)
    if leaf is not None:
        write_leaf(directory, leaf, authority.control_ca, authority.hosts_ca)
        trusting.load_cert_chain(directory / "certificate.pem", directory / "key.pem")
    return trusting


def host_leaf(control: ControlPlane, host_id: HostId) -> Leaf:
    key, csr = make_csr(host_id)
    return Leaf(Authority.open(control.home / "ca").host_certificate(csr, host_id, "127.0.0.1"), key)


def call(control: ControlPlane, trusting: ssl.SSLContext, method: str, path: str, body: bytes | None = None) -> int:
    with httpx.Client(verify=trusting, trust_env=False, timeout=PATIENCE_S) as client:
        return client.request(
            method,
            control.host_url + path,
            content=body,
            headers={"Content-Type": "application/json"},
            extensions={"sni_hostname": "control"},
        ).status_code


class TestHostListener:
    def test_a_machine_becomes_a_host_and_speaks_with_its_certificate(
        self, served: ControlPlane, tmp_path: Path
    ) -> None:
        store = served.store()
        host_id = HostId("spot-host-fresh")
        store.hosts.add(a_host(host_id, state=HostState.LAUNCHING))
        token = store.issue_token(host_id, datetime.now(UTC) + timedelta(minutes=5))
        ca = httpx.get(f"{served.host_url}/v1/ca", verify=False, trust_env=False).text  # noqa: S501 - told by its hash
        authority = Authority.open(served.home / "ca")
        assert hashlib.sha256(ca.encode()).hexdigest() == authority.control_ca_sha256
        key, csr = make_csr(host_id)
        request = RegistrationRequest(host_id=host_id, token=token, csr=csr, address="127.0.0.1")
        with httpx.Client(verify=ssl.create_default_context(cadata=ca), trust_env=False) as client:
            answer = client.post(
                f"{served.host_url}/v1/register",
                content=TypeAdapter(RegistrationRequest).dump_json(request),
                headers={"Content-Type": "application/json"},
                extensions={"sni_hostname": "control"},
            )
        given = TypeAdapter(RegistrationAnswer).validate_json(answer.content)
        mine = context(served, Leaf(given.certificate, key), tmp_path)
        assert call(served, mine, "POST", "/v1/heartbeat", HEARTBEAT) == 200
        host = store.hosts.get(host_id)
        assert host is not None
        assert host.heartbeat_at is not None
        store.close()

    def test_without_a_certificate_nothing_is_said(self, served: ControlPlane, tmp_path: Path) -> None:
        nobody = context(served, None, tmp_path)
        assert call(served, nobody, "GET", "/v1/ca") == 200
        assert call(served, nobody, "POST", "/v1/heartbeat", HEARTBEAT) == 403

    def test_a_header_is_no_identity(self, served: ControlPlane, tmp_path: Path) -> None:
        store = served.store()
        store.hosts.add(a_host(H))
        store.close()
        with httpx.Client(verify=context(served, None, tmp_path), trust_env=False) as client:
            answer = client.post(
                f"{served.host_url}/v1/heartbeat",
                content=HEARTBEAT,
                headers={"Content-Type": "application/json", "X-Client-Cert": H, "X-Forwarded-For": H, "SSL-CN": H},
                extensions={"sni_hostname": "control"},
            )
        assert answer.status_code == 403

    def test_certificates_of_other_issuers_end_the_handshake(self, served: ControlPlane, tmp_path: Path) -> None:
        foreign = Authority.open(tmp_path / "foreign")
        key, csr = make_csr(H)
        strangers = [
            Leaf(foreign.host_certificate(csr, H, "127.0.0.1"), key),
            Authority.open(served.home / "ca").control_leaf(H),
        ]
        for number, leaf in enumerate(strangers):
            stranger = context(served, leaf, tmp_path / str(number))
            with pytest.raises((httpx.ReadError, httpx.ConnectError, httpx.RemoteProtocolError)):
                call(served, stranger, "POST", "/v1/heartbeat", HEARTBEAT)

    def test_a_terminated_host_is_refused(self, served: ControlPlane, tmp_path: Path) -> None:
        store = served.store()
        store.hosts.add(a_host("spot-host-ended", state=HostState.TERMINATED))
        store.close()
        ended = context(served, host_leaf(served, HostId("spot-host-ended")), tmp_path)
        assert call(served, ended, "POST", "/v1/heartbeat", HEARTBEAT) == 403

    def test_a_renewed_leaf_is_shown_without_a_restart(self, served: ControlPlane, tmp_path: Path) -> None:
        def shown() -> bytes:
            trusting = context(served, None, tmp_path)
            with (
                socket.create_connection(("127.0.0.1", served.host_port), timeout=PATIENCE_S) as plain,
                trusting.wrap_socket(plain, server_hostname="control") as tls,
            ):
                return tls.getpeercert(binary_form=True) or b""

        before = shown()
        assert shown() == before
        authority = Authority.open(served.home / "ca")
        leaf = authority.control_leaf("control")
        write_leaf(served.home / "serve", leaf, authority.control_ca, authority.hosts_ca)
        assert shown() == ssl.PEM_cert_to_DER_cert(leaf.certificate)


class TestPublicListener:
    def post(self, served: ControlPlane, body: bytes | Iterator[bytes], headers: dict[str, str]) -> int:
        return httpx.post(
            f"{served.public_url}/github", content=body, headers=headers, trust_env=False, timeout=PATIENCE_S
        ).status_code

    def test_a_signed_delivery_is_accepted_and_an_unsigned_one_is_not(self, served: ControlPlane) -> None:
        body, headers = PING
        assert self.post(served, body, headers) == 202
        assert self.post(served, body + b" ", headers) == 401

    def test_a_body_over_the_limit_is_refused_with_and_without_its_length(self, served: ControlPlane) -> None:
        body, headers = signed("ping", b" " * (BODY_LIMIT_BYTES + 1), "guid-2")
        assert self.post(served, body, headers) == 413
        assert self.post(served, iter([body[:65536], body[65536:]]), headers) == 413
        body, headers = signed("ping", {"zen": "y"}, "guid-3")
        assert self.post(served, iter([body[:5], body[5:]]), headers) == 202

    def test_what_a_host_may_say_is_not_said_here(self, served: ControlPlane) -> None:
        assert httpx.get(f"{served.public_url}/v1/ca", trust_env=False).status_code == 404


def masters_of(pid: int) -> list[int]:
    """Return the direct children of a supervisor."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


class TestItsEnd:
    """Whatever ends the supervisor, nothing of it is left."""

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
    def test_no_process_is_left(self, tmp_path: Path, number: signal.Signals) -> None:
        control = a_control_plane(tmp_path)
        with control.serve() as process:
            offspring = children_of(process.pid)
            assert len(offspring) >= 5  # two masters, two public processes, one for hosts
            with ended_at_last(offspring):
                process.send_signal(number)
                assert process.wait(PATIENCE_S) == (-9 if number is signal.SIGKILL else 0)
                eventually(lambda: not any(map(is_alive, offspring)))

    def test_a_child_that_dies_is_started_again(self, tmp_path: Path) -> None:
        control = a_control_plane(tmp_path)
        with control.serve() as process:
            before = masters_of(process.pid)
            os.kill(before[0], signal.SIGKILL)
            # Its own children serve on for a moment, so only another master tells of a restart.
            eventually(lambda: len(set(masters_of(process.pid)) - {before[0]}) == len(before))
            eventually(control.is_serving)


class TestBeforeItStarts:
    def refused(self, control: ControlPlane, **changed: str) -> str:
        done = subprocess.run(
            [*SPOT_RUNNER, "serve"],
            env={**control.environment(), **changed},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert not (control.home / "serve").exists()
        return done.stderr

    def test_a_taken_port_is_one_line_that_says_what_to_do(self, tmp_path: Path) -> None:
        control = a_control_plane(tmp_path)
        with socket.create_server(("127.0.0.1", control.host_port)):
            assert "host_listen: cannot listen on" in self.refused(control)

    def test_a_port_that_a_dying_predecessor_still_holds_is_waited_for(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as held:
            port = held.getsockname()[1]
            ending = threading.Timer(0.5, held.close)
            ending.start()
            check_free("host_listen", f"127.0.0.1:{port}")
            ending.join()
        with socket.create_server(("127.0.0.1", port)), pytest.raises(Unfit, match="host_listen: cannot listen on"):
            check_free("host_listen", f"127.0.0.1:{port}", limit_s=0.3)

    def test_a_missing_secret_or_a_wrong_setting_is_one_line(self, tmp_path: Path) -> None:
        control = a_control_plane(tmp_path)
        (tmp_path / "secret").write_text("")
        assert "webhook_secret_file" in self.refused(control)
        assert "SPOT_RUNNER_HOSTS_MAX" in self.refused(control, SPOT_RUNNER_HOSTS_MAX="many")
