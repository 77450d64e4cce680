"""A host's certificate is renewed for as long as its daemon runs, and a renewal that fails costs nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from workers.bootstrap.host import keep_renewed
from workers.domain.errors import Unreachable
from workers.domain.messages import RegistrationAnswer, RenewalRequest
from workers.domain.names import HostId
from workers.identity import Authority, Leaf, make_csr, write_leaf

HOST = HostId("spot-host-a")
ADDRESS = "10.90.0.16"


def test_the_next_certificate_takes_the_place_of_the_present_one_under_the_same_key(tmp_path: Path) -> None:
    authority, directory = Authority.open(tmp_path / "ca"), tmp_path / "identity"
    key, csr = make_csr(HOST)
    first = authority.host_certificate(csr, HOST, ADDRESS)
    write_leaf(directory, Leaf(first, key), authority.control_ca, authority.hosts_ca)
    asked: list[RenewalRequest] = []
    renewed = asyncio.Event()

    async def renew(request: RenewalRequest) -> RegistrationAnswer:
        asked.append(request)
        if len(asked) == 1:
            raise Unreachable("the control plane is being restarted")
        if len(asked) > 2:  # the one before has been written by now
            renewed.set()
        certificate = authority.host_certificate(request.csr, HOST, ADDRESS)
        return RegistrationAnswer(certificate, authority.control_ca, authority.hosts_ca)

    async def until_renewed() -> None:
        task = asyncio.create_task(keep_renewed(renew, HOST, directory, interval_s=0.01))
        async with asyncio.timeout(10):
            await renewed.wait()
        task.cancel()

    asyncio.run(until_renewed())
    leaf = x509.load_pem_x509_certificate((directory / "certificate.pem").read_bytes())
    before = x509.load_pem_x509_certificate(first.encode())
    held = load_pem_private_key((directory / "key.pem").read_bytes(), password=None)
    assert leaf.serial_number != before.serial_number
    assert leaf.subject == before.subject
    assert leaf.public_key() == before.public_key() == held.public_key()
