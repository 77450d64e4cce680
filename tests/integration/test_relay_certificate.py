"""The relay's certificate is renewed by the control plane, over the relay's own API."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from structlog.testing import capture_logs

from tests.integration.served import served
from workers.bootstrap.leaf import relay_renewal
from workers.bootstrap.relay import Credentials
from workers.domain.errors import Refused, SpotError
from workers.identity import Authority, make_csr, write_leaf
from workers.relay.client import RelayClient
from workers.relay.server import Forwarder, make_relay_app
from workers.settings import ControlSettings


class NoKernel:
    """Nothing is forwarded here."""

    def hold(self, _entries: object) -> None:
        return

    def change(self, _before: object, _after: object) -> None:
        return


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    authority = Authority.open(tmp_path / "ca")
    for name, directory in (("relay", "relay"), ("control", "worker")):
        write_leaf(tmp_path / directory, authority.control_leaf(name), authority.control_ca, authority.hosts_ca)
    return authority


@pytest.fixture
def url(tmp_path: Path, authority: Authority) -> Iterator[str]:
    assert authority
    forwarder = Forwarder(NoKernel(), tmp_path / "forwarding.json")
    with served(make_relay_app(forwarder, Credentials(tmp_path / "relay")), tmp_path / "relay") as port:
        yield f"https://127.0.0.1:{port}"


@pytest.fixture
def client(url: str, tmp_path: Path) -> Iterator[RelayClient]:
    with closing(RelayClient(url, tmp_path / "worker")) as client:
        yield client


def shown(tmp_path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate((tmp_path / "relay" / "certificate.pem").read_bytes())


def test_it_gets_a_later_certificate_of_the_same_key(
    tmp_path: Path, authority: Authority, url: str, client: RelayClient
) -> None:
    before, key = shown(tmp_path), (tmp_path / "relay" / "key.pem").read_bytes()
    relay_renewal(ControlSettings(home=tmp_path), tmp_path / "worker", url)()
    after = shown(tmp_path)
    assert after.serial_number != before.serial_number
    after.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.control_ca.encode()))
    assert after.not_valid_after_utc >= before.not_valid_after_utc
    assert after.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "relay"
    assert (tmp_path / "relay" / "key.pem").read_bytes() == key
    context = ssl.create_default_context()
    context.load_cert_chain(tmp_path / "relay" / "certificate.pem", tmp_path / "relay" / "key.pem")
    assert client.certificate_request().startswith("-----BEGIN CERTIFICATE REQUEST-----")


def test_it_keeps_what_it_has_rather_than_show_what_is_not_its_own(
    tmp_path: Path, authority: Authority, client: RelayClient
) -> None:
    before = shown(tmp_path)
    _, request = make_csr("relay")  # of another key
    for foreign in (authority.relay_certificate(request), "no certificate", ""):
        with pytest.raises(SpotError):
            client.renew(foreign)
    assert shown(tmp_path) == before


def test_a_host_may_neither_ask_for_it_nor_replace_it(tmp_path: Path, authority: Authority, url: str) -> None:
    with closing(RelayClient(url, tmp_path / "host")) as host:
        write_leaf(tmp_path / "host", authority.control_leaf("relay"), authority.control_ca, authority.hosts_ca)
        for attempt in (host.certificate_request, lambda: host.renew("")):
            with pytest.raises(Refused):
                attempt()


def test_a_relay_that_is_away_is_only_spoken_of(tmp_path: Path, authority: Authority) -> None:
    assert authority
    renew = relay_renewal(ControlSettings(home=tmp_path), tmp_path / "worker", "https://127.0.0.1:9")
    with capture_logs() as said:
        renew()
    assert [line["event"] for line in said] == ["relay_certificate_not_renewed"]
