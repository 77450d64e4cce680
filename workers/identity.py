"""Who is who: the deployment's two issuers and the certificates that they sign.

    control ──▶ control plane, relay      a host obeys whoever shows one of these
    hosts   ──▶ one leaf for each host    the control plane knows a host by it
            ──▶ two leaves for each move  its two monitors know each other by them

They are two so that no host, which runs untrusted jobs, can ever give another
host an order. Leaves live for a day; whoever needs one longer gets another. A move's live for minutes.
"""

from __future__ import annotations

import fcntl
import hashlib
import ipaddress
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from workers.clock import SystemClock
from workers.domain.errors import BadInput, Unfit
from workers.domain.names import HostId, MigrationId, move_name
from workers.ports import Clock

ORGANIZATION: Final = "spot-runner"
LEAF_LIFE: Final = timedelta(hours=24)
# Both streams of a move are opened within seconds; a host's clock may be some minutes ahead.
MOVE_LIFE: Final = timedelta(minutes=15)
# A machine that has just booted may have a clock that is some minutes behind.
BACKDATED: Final = timedelta(minutes=10)
ISSUER_LIFE: Final = timedelta(days=3650)

RELAY: Final = "relay"
RESTORING: Final = ".restoring"
"""A directory beside the issuers while they are brought back: nobody makes others meanwhile."""

CERTIFICATE: Final = "certificate.pem"
KEY: Final = "key.pem"
CONTROL_CA: Final = "control-ca.pem"
HOSTS_CA: Final = "hosts-ca.pem"


@dataclass(frozen=True)
class Leaf:
    """A certificate and its key, both PEM."""

    certificate: str
    key: str = field(repr=False)


@dataclass(frozen=True)
class _Issuer:
    """A self-signed certificate that signs leaves."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @property
    def pem(self) -> str:
        return _pem(self.certificate)


class Authority:
    """Both issuers of one deployment."""

    def __init__(self, control: _Issuer, hosts: _Issuer, clock: Clock) -> None:
        self._control, self._hosts, self._clock = control, hosts, clock

    @classmethod
    def open(cls, directory: Path, clock: Clock | None = None) -> Authority:
        """Return the issuers kept in this directory; made at the first time, however many processes ask at once.

        Raises `Unfit` if they can be neither read nor written.
        """
        clock = clock or SystemClock()
        if (directory / RESTORING).exists():
            raise Unfit(f"a restore into {directory.parent} has not ended; docs/operating.md says what to do")
        try:
            with _alone(directory):
                control, hosts = (_kept(directory / f"{name}.pem", name, clock) for name in ("control", "hosts"))
        except (OSError, ValueError) as error:
            raise Unfit(f"the issuers in {directory} cannot be used ({error}); make it ours, or remove it") from error
        return cls(control, hosts, clock)

    @property
    def control_ca(self) -> str:
        """PEM: whoever shows a certificate of this issuer is the control plane."""
        return self._control.pem

    @property
    def hosts_ca(self) -> str:
        """PEM: whoever shows a certificate of this issuer is a host of this deployment."""
        return self._hosts.pem

    @property
    def control_ca_sha256(self) -> str:
        """Hex digest of `control_ca` as it is sent, by which a machine knows it before it trusts anything."""
        return hashlib.sha256(self.control_ca.encode()).hexdigest()

    def host_certificate(self, csr_pem: str, host_id: HostId, address: str) -> str:
        """Return a host's certificate for the key of this request; every name in the request is ignored.

        Raises `BadInput` if the request was not signed by its own P-256 key or the address is none.
        """
        return _pem(self._leaf(self._hosts, _key_of(csr_pem), host_id, [address]))

    def move_certificate(self, csr_pem: str, host_id: HostId, migration_id: MigrationId) -> str:
        """Return the certificate of one host's part in one migration; nobody takes it for the host's own.

        Raises `BadInput` if the request was not signed by its own P-256 key.
        """
        return _pem(self._leaf(self._hosts, _key_of(csr_pem), move_name(host_id, migration_id), (), MOVE_LIFE))

    def relay_certificate(self, csr_pem: str) -> str:
        """Return the relay's next certificate for the key of this request; every name in the request is ignored.

        Raises `BadInput` if the request was not signed by its own P-256 key.
        """
        return _pem(self._leaf(self._control, _key_of(csr_pem), RELAY, ()))

    def control_leaf(self, name: str, addresses: Sequence[str] = ()) -> Leaf:
        """Make a certificate and key for a part of the control plane: `control`, `relay`."""
        key = _make_key()
        return Leaf(_pem(self._leaf(self._control, key.public_key(), name, addresses)), _key_pem(key))

    def _leaf(
        self,
        issuer: _Issuer,
        key: ec.EllipticCurvePublicKey,
        name: str,
        addresses: Sequence[str],
        life: timedelta = LEAF_LIFE,
    ) -> x509.Certificate:
        try:
            names = x509.SubjectAlternativeName(
                [x509.DNSName(name), *(x509.IPAddress(ipaddress.ip_address(address)) for address in addresses)]
            )
            builder = _builder(self._clock, _subject(name), life).issuer_name(issuer.certificate.subject)
        except ValueError as error:
            raise BadInput(f"no certificate can be made for {name!r} at {list(addresses)}: {error}") from error
        return (
            builder.public_key(key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(is_issuer=False), critical=True)
            # Hosts are servers and clients to each other, and QEMU checks which of them a certificate is for.
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(names, critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()), critical=False)
            .sign(issuer.key, hashes.SHA256())
        )


def make_csr(name: str) -> tuple[str, str]:
    """Make a host's key and the request for its certificate; returns (key, request), both PEM."""
    key = _make_key()
    return _key_pem(key), _request(name, key)


def next_csr(name: str, directory: Path) -> str:
    """Return the request (PEM) for the next certificate of the key in this directory."""
    return _request(name, _present_key(directory))


def write_next(directory: Path, certificate: str) -> None:
    """Put the next certificate (PEM) in the place of the present one; the key stays, so both fit at any moment.

    Raises `BadInput` if it is none, or another key's.
    """
    try:
        key = x509.load_pem_x509_certificate(certificate.encode()).public_key()
    except (ValueError, x509.InvalidVersion, UnsupportedAlgorithm) as error:
        raise BadInput(f"the certificate cannot be read ({error}); send it as PEM") from error
    if key != _present_key(directory).public_key():
        raise BadInput("the certificate is for another key; make it from this machine's own request")
    _write(directory / CERTIFICATE, certificate, 0o644)


def _present_key(directory: Path) -> ec.EllipticCurvePrivateKey:
    key = load_pem_private_key((directory / KEY).read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise Unfit(f"{directory / KEY} holds no P-256 key; remove the directory, and the machine with it")
    return key


def write_leaf(directory: Path, leaf: Leaf, control_ca: str, hosts_ca: str) -> None:
    """Write `certificate.pem`, `key.pem`, `control-ca.pem` and `hosts-ca.pem`; nobody but us ever reads the key."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(directory / KEY, leaf.key)
    for name, pem in ((CERTIFICATE, leaf.certificate), (CONTROL_CA, control_ca), (HOSTS_CA, hosts_ca)):
        _write(directory / name, pem, 0o644)


def write_private(path: Path, text: str) -> None:
    """Put this text in the place of the file at once; from its creation on only we may read it."""
    _write(path, text, 0o600)


def common_name(certificate: Mapping[str, object] | None) -> str | None:
    """Return the one common name in what `SSLSocket.getpeercert()` says, None without a certificate or with several."""
    subject = (certificate or {}).get("subject", ())
    if not isinstance(subject, tuple):
        return None
    found = [value for part in subject for key, value in part if key == "commonName"]
    return found[0] if len(found) == 1 else None


# ---------------------------------------------------------------- certificates


def _request(name: str, key: ec.EllipticCurvePrivateKey) -> str:
    request = x509.CertificateSigningRequestBuilder().subject_name(_subject(name)).sign(key, hashes.SHA256())
    return request.public_bytes(Encoding.PEM).decode()


def _make_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _subject(name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANIZATION),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )


def _builder(clock: Clock, subject: x509.Name, life: timedelta) -> x509.CertificateBuilder:
    now = clock.now()
    builder = x509.CertificateBuilder().subject_name(subject).serial_number(x509.random_serial_number())
    return builder.not_valid_before(now - BACKDATED).not_valid_after(now + life)


def _usage(*, is_issuer: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_encipherment=not is_issuer,
        key_cert_sign=is_issuer,
        crl_sign=is_issuer,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _make_issuer(name: str, clock: Clock) -> _Issuer:
    key, subject = _make_key(), _subject(f"{ORGANIZATION} {name}")
    certificate = (
        _builder(clock, subject, ISSUER_LIFE)
        .issuer_name(subject)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(is_issuer=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return _Issuer(certificate, key)


def _key_of(csr_pem: str) -> ec.EllipticCurvePublicKey:
    try:
        request = x509.load_pem_x509_csr(csr_pem.encode())
        key, is_own = request.public_key(), request.is_signature_valid
    except (ValueError, x509.InvalidVersion, UnsupportedAlgorithm) as error:
        raise BadInput(f"csr cannot be read ({error}); send a PEM certificate signing request") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1) or not is_own:
        raise BadInput("csr must hold a P-256 key and be signed by it; make another")
    return key


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


# ---------------------------------------------------------------- files


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Let one process at a time look into this directory; the lock ends with the process, whatever happens to it."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _kept(path: Path, name: str, clock: Clock) -> _Issuer:
    """Return the issuer in this file; its key and its certificate share it, so that neither is ever there alone."""
    if not path.exists():
        issuer = _make_issuer(name, clock)
        write_private(path, _key_pem(issuer.key) + issuer.pem)
    pem = path.read_bytes()
    key = load_pem_private_key(pem, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError(f"{path.name} holds no P-256 key")  # noqa: TRY004 a damaged file, not a wrong argument
    return _Issuer(x509.load_pem_x509_certificate(pem), key)


def _write(path: Path, text: str, mode: int) -> None:
    """Write beside the file and put it in its place, so that a reader sees the old text or the new one."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
