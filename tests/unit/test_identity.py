"""Who is let in: real handshakes with certificates of both issuers."""

from __future__ import annotations

import hashlib
import multiprocessing
import socket
import ssl
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.unit.identity_opener import opened_ca
from workers.clock import SystemClock
from workers.domain.errors import BadInput, Unfit
from workers.domain.names import HostId, MigrationId
from workers.identity import Authority, Leaf, common_name, make_csr, write_leaf

HOST = HostId("spot-host-a")
WAIT_S = 20


@dataclass(frozen=True)
class FixedClock:
    """Always the same moment."""

    moment: datetime = field(default_factory=lambda: datetime.now(UTC))

    def now(self) -> datetime:
        return self.moment


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.open(tmp_path / "ca")


def at(tmp_path: Path, moment: datetime) -> Authority:
    """Return the same issuers as `authority`, signing as if it were then."""
    return Authority.open(tmp_path / "ca", FixedClock(moment))


def host_leaf(authority: Authority, host_id: HostId = HOST) -> Leaf:
    key, csr = make_csr(host_id)
    return Leaf(authority.host_certificate(csr, host_id, "127.0.0.1"), key)


def parsed(pem: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem.encode())


# ---------------------------------------------------------------- handshakes


@dataclass(frozen=True)
class Meeting:
    """What came of one handshake, seen from both sides."""

    client_name: str | None
    """The name that the server knows the client by, None if it let nobody in."""
    answer: bytes
    """What the client read, empty if it was not let in or would not speak."""


def loaded(context: ssl.SSLContext, leaf: Leaf | None, directory: Path) -> ssl.SSLContext:
    if leaf:
        write_leaf(directory, leaf, "", "")
        context.load_cert_chain(directory / "certificate.pem", directory / "key.pem")
    return context


def listener(tmp_path: Path, leaf: Leaf, trusted: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=trusted)
    return loaded(context, leaf, tmp_path / "server")


def dialler(tmp_path: Path, leaf: Leaf | None, trusted: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=trusted)
    return loaded(context, leaf, tmp_path / "client")


def meet(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> Meeting:
    """Let `client` dial `server`, expecting it to be called `name`."""
    ours, theirs = socket.socketpair()
    with ThreadPoolExecutor(1) as pool:
        serving = pool.submit(_serve, server, ours)
        answer = _dial(client, theirs, name)
        return Meeting(serving.result(WAIT_S), answer)


def _serve(context: ssl.SSLContext, plain: socket.socket) -> str | None:
    plain.settimeout(WAIT_S)
    try:
        with context.wrap_socket(plain, server_side=True) as wrapped:
            wrapped.sendall(b"welcome")
            return common_name(wrapped.getpeercert())
    except (ssl.SSLError, OSError):
        return None
    finally:
        plain.close()


def _dial(context: ssl.SSLContext, plain: socket.socket, name: str) -> bytes:
    plain.settimeout(WAIT_S)
    try:
        with context.wrap_socket(plain, server_hostname=name) as wrapped:
            return wrapped.recv(64)
    except (ssl.SSLError, OSError):
        return b""
    finally:
        plain.close()


REFUSED = Meeting(None, b"")


class TestHandshakes:
    def test_a_host_obeys_the_control_plane(self, authority: Authority, tmp_path: Path) -> None:
        server = listener(tmp_path, host_leaf(authority), authority.control_ca)
        client = dialler(tmp_path, authority.control_leaf("control"), authority.hosts_ca)
        assert meet(server, client, HOST) == Meeting("control", b"welcome")

    def test_a_host_does_not_obey_another_host(self, authority: Authority, tmp_path: Path) -> None:
        server = listener(tmp_path, host_leaf(authority), authority.control_ca)
        client = dialler(tmp_path, host_leaf(authority, HostId("spot-host-b")), authority.hosts_ca)
        assert meet(server, client, HOST) == REFUSED

    def test_not_even_one_that_calls_itself_control(self, authority: Authority, tmp_path: Path) -> None:
        server = listener(tmp_path, host_leaf(authority), authority.control_ca)
        client = dialler(tmp_path, host_leaf(authority, HostId("control")), authority.hosts_ca)
        assert meet(server, client, HOST) == REFUSED

    def test_the_control_plane_knows_a_host_by_its_certificate(self, authority: Authority, tmp_path: Path) -> None:
        server = listener(tmp_path, authority.control_leaf("control"), authority.hosts_ca)
        client = dialler(tmp_path, host_leaf(authority), authority.control_ca)
        assert meet(server, client, "control") == Meeting(HOST, b"welcome")

    def test_two_hosts_meet_each_other(self, authority: Authority, tmp_path: Path) -> None:
        server = listener(tmp_path, host_leaf(authority), authority.hosts_ca)
        client = dialler(tmp_path, host_leaf(authority, HostId("spot-host-b")), authority.hosts_ca)
        assert meet(server, client, HOST) == Meeting("spot-host-b", b"welcome")

    def test_a_client_does_not_speak_to_a_server_of_another_name(self, authority: Authority, tmp_path: Path) -> None:
        server = listener(tmp_path, host_leaf(authority), authority.control_ca)
        client = dialler(tmp_path, authority.control_leaf("control"), authority.hosts_ca)
        assert meet(server, client, "spot-host-b").answer == b""

    def test_a_host_is_found_by_its_address_too(self, authority: Authority, tmp_path: Path) -> None:
        server = listener(tmp_path, host_leaf(authority), authority.control_ca)
        client = dialler(tmp_path, authority.control_leaf("control"), authority.hosts_ca)
        assert meet(server, client, "127.0.0.1").answer == b"welcome"
        assert meet(server, client, "127.0.0.2").answer == b""

    def test_nobody_comes_in_without_a_certificate(self, authority: Authority, tmp_path: Path) -> None:
        server = listener(tmp_path, host_leaf(authority), authority.control_ca)
        assert meet(server, dialler(tmp_path, None, authority.hosts_ca), HOST) == REFUSED

    def test_another_deployments_control_plane_is_a_stranger(self, authority: Authority, tmp_path: Path) -> None:
        other = Authority.open(tmp_path / "other")
        server = listener(tmp_path, host_leaf(authority), authority.control_ca)
        client = dialler(tmp_path, other.control_leaf("control"), authority.hosts_ca)
        assert meet(server, client, HOST) == REFUSED

    @pytest.mark.parametrize(
        ("ago", "is_good"),
        [
            (timedelta(hours=23, minutes=59), True),
            (timedelta(hours=24, minutes=1), False),
            (timedelta(minutes=-9), True),
            (timedelta(minutes=-11), False),
        ],
        ids=["nearly a day old", "a day old", "clock nine minutes behind", "clock eleven minutes behind"],
    )
    def test_a_certificate_lives_for_a_day_and_is_backdated_ten_minutes(
        self, tmp_path: Path, ago: timedelta, *, is_good: bool
    ) -> None:
        now = datetime.now(UTC)
        at(tmp_path, now - timedelta(days=2))  # the issuers are older than what they sign
        then = at(tmp_path, now - ago)
        server = listener(tmp_path, host_leaf(Authority.open(tmp_path / "ca")), then.control_ca)
        client = dialler(tmp_path, then.control_leaf("control"), then.hosts_ca)
        assert meet(server, client, HOST) == (Meeting("control", b"welcome") if is_good else REFUSED)

    def test_an_expired_host_is_not_spoken_to(self, tmp_path: Path) -> None:
        old = at(tmp_path, datetime.now(UTC) - timedelta(days=2))
        server = listener(tmp_path, host_leaf(old), old.control_ca)
        client = dialler(tmp_path, Authority.open(tmp_path / "ca").control_leaf("control"), old.hosts_ca)
        assert meet(server, client, HOST).answer == b""


# ---------------------------------------------------------------- certificates


class TestCertificates:
    def test_subject_names_usages_and_life_are_as_promised(self, tmp_path: Path) -> None:
        now = datetime.now(UTC).replace(microsecond=0)
        certificate = parsed(host_leaf(at(tmp_path, now)).certificate)
        assert certificate.subject.rfc4514_string() == "CN=spot-host-a,O=spot-runner"
        assert [part.oid for part in certificate.subject] == [NameOID.ORGANIZATION_NAME, NameOID.COMMON_NAME]
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == ["spot-host-a"]
        assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
        assert certificate.not_valid_before_utc == now - timedelta(minutes=10)
        assert certificate.not_valid_after_utc == now + timedelta(hours=24)
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
        assert usage.critical
        assert usage.value.digital_signature
        assert usage.value.key_encipherment
        assert not usage.value.key_cert_sign
        purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert set(purposes) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
        assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca

    def test_a_request_gives_its_key_and_nothing_else(self, authority: Authority) -> None:
        key, csr = make_csr(HostId("spot-host-liar"))
        certificate = parsed(authority.host_certificate(csr, HOST, "10.90.0.16"))
        assert "liar" not in str(certificate.extensions) + certificate.subject.rfc4514_string()
        assert certificate.public_key() == load_pem_private_key(key.encode(), None).public_key()

    def test_the_certificate_of_a_move_is_for_one_name_and_for_minutes(self, tmp_path: Path) -> None:
        now = datetime.now(UTC).replace(microsecond=0)
        csr = make_csr(HOST)[1]
        certificate = parsed(at(tmp_path, now).move_certificate(csr, HOST, MigrationId("spot-move-1")))
        assert certificate.subject.rfc4514_string() == "CN=spot-host-a.spot-move-1,O=spot-runner"
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert list(names) == [x509.DNSName("spot-host-a.spot-move-1")]
        assert certificate.not_valid_before_utc == now - timedelta(minutes=10)
        assert certificate.not_valid_after_utc == now + timedelta(minutes=15)

    @pytest.mark.parametrize(
        "csr",
        [
            "",
            "nonsense",
            "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
            make_csr(HOST)[1].replace("M", "N", 1),
            make_csr(HOST)[0],
            "é",
        ],
    )
    def test_a_request_that_cannot_be_read_is_bad_input(self, authority: Authority, csr: str) -> None:
        with pytest.raises(BadInput, match="csr"):
            authority.host_certificate(csr, HOST, "10.90.0.16")

    @pytest.mark.parametrize(
        "key", [rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1())], ids=["rsa", "p384"]
    )
    def test_another_kind_of_key_is_bad_input(
        self, authority: Authority, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
    ) -> None:
        request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
        with pytest.raises(BadInput, match="P-256"):
            authority.host_certificate(request.public_bytes(Encoding.PEM).decode(), HOST, "10.90.0.16")

    def test_a_request_for_somebody_elses_key_is_bad_input(self, authority: Authority) -> None:
        """The signature proves that whoever asks has the key."""
        der = bytearray(x509.load_pem_x509_csr(make_csr(HOST)[1].encode()).public_bytes(Encoding.DER))
        der[-1] ^= 1
        broken = x509.load_der_x509_csr(bytes(der)).public_bytes(Encoding.PEM).decode()
        with pytest.raises(BadInput, match="signed by it"):
            authority.host_certificate(broken, HOST, "10.90.0.16")

    @pytest.mark.parametrize(("name", "address"), [("", "::1"), ("x" * 65, "::1"), ("ü", "::1"), ("a", "here")])
    def test_a_name_or_an_address_that_no_certificate_can_hold_is_bad_input(
        self, authority: Authority, name: str, address: str
    ) -> None:
        with pytest.raises(BadInput):
            authority.control_leaf(name, [address])

    def test_a_key_is_not_shown_by_accident(self, authority: Authority) -> None:
        assert "PRIVATE" not in repr(authority.control_leaf("control"))


class TestCommonName:
    @pytest.mark.parametrize("certificate", [None, {}, {"subject": ()}, {"subject": "CN=x"}, {"issuer": ()}])
    def test_without_a_subject_there_is_no_name(self, certificate: dict[str, object] | None) -> None:
        assert common_name(certificate) is None

    def test_two_names_are_no_name(self) -> None:
        assert common_name({"subject": ((("commonName", "a"),), (("commonName", "b"),))}) is None

    def test_one_name_is_the_name(self) -> None:
        subject = ((("organizationName", "spot-runner"),), (("commonName", "spot-host-a"),))
        assert common_name({"subject": subject}) == "spot-host-a"


# ---------------------------------------------------------------- files


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


class TestFiles:
    def test_the_issuers_are_made_once(self, tmp_path: Path) -> None:
        first, second = Authority.open(tmp_path / "deep/ca"), Authority.open(tmp_path / "deep/ca")
        assert (first.control_ca, first.hosts_ca) == (second.control_ca, second.hosts_ca)
        assert first.control_ca != first.hosts_ca
        assert first.control_ca_sha256 == hashlib.sha256(first.control_ca.encode()).hexdigest()

    def test_processes_that_open_at_once_agree(self, tmp_path: Path) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["tests.unit.identity_opener"])
        for number in range(3):
            with context.Pool(4) as pool:
                assert len(set(pool.map(opened_ca, [str(tmp_path / str(number))] * 8, chunksize=1))) == 1

    def test_nobody_else_can_read_a_key(self, authority: Authority, tmp_path: Path) -> None:
        write_leaf(tmp_path / "leaf", authority.control_leaf("control"), authority.control_ca, authority.hosts_ca)
        assert mode(tmp_path / "leaf/key.pem") == mode(tmp_path / "ca/control.pem") == 0o600
        assert mode(tmp_path / "ca/hosts.pem") == 0o600
        assert mode(tmp_path / "ca") == mode(tmp_path / "leaf") == 0o700

    def test_a_leaf_is_four_files_and_replaces_the_one_before(self, authority: Authority, tmp_path: Path) -> None:
        directory, leaf = tmp_path / "leaf", authority.control_leaf("control", ["10.90.0.2"])
        write_leaf(directory, authority.control_leaf("old"), authority.control_ca, authority.hosts_ca)
        write_leaf(directory, leaf, authority.control_ca, authority.hosts_ca)
        assert {path.name: path.read_text() for path in directory.iterdir()} == {
            "certificate.pem": leaf.certificate,
            "key.pem": leaf.key,
            "control-ca.pem": authority.control_ca,
            "hosts-ca.pem": authority.hosts_ca,
        }

    @pytest.mark.parametrize("kept", [0, 100, 300, -10])
    def test_damaged_issuers_are_not_replaced_in_silence(self, authority: Authority, tmp_path: Path, kept: int) -> None:
        file = tmp_path / "ca/control.pem"
        file.write_text(damaged := file.read_text()[:kept])
        with pytest.raises(Unfit, match="issuers"):
            Authority.open(tmp_path / "ca")
        assert file.read_text() == damaged

    def test_a_directory_that_cannot_be_made_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(Unfit, match="file/ca"):
            Authority.open(tmp_path / "file/ca", SystemClock())
