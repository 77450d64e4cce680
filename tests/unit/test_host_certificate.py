"""A host's certificate is renewed for as long as its daemon runs, and a renewal that fails costs nothing."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.integration.served import served
from workers.bootstrap.host import keep_renewed
from workers.domain.errors import Unreachable
from workers.domain.messages import RegistrationAnswer, RenewalRequest
from workers.domain.names import HostId
from workers.host.control import ControlClient
from workers.identity import Authority, Leaf, make_csr, write_leaf
from workers.listener import make_app

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


class Stopped:
    """A clock of another day."""

    def __init__(self, at: datetime) -> None:
        self.at = at

    def now(self) -> datetime:
        return self.at


def test_a_daemon_that_is_started_again_and_again_renews_by_the_certificates_age(tmp_path: Path) -> None:
    authority, directory = Authority.open(tmp_path / "ca"), tmp_path / "identity"
    key, csr = make_csr(HOST)
    certificate = authority.host_certificate(csr, HOST, ADDRESS)
    write_leaf(directory, Leaf(certificate, key), authority.control_ca, authority.hosts_ca)
    old = time.time() - 9 * 3600
    os.utime(directory / "certificate.pem", (old, old))
    renewed = asyncio.Event()

    async def renew(request: RenewalRequest) -> RegistrationAnswer:
        renewed.set()
        certificate = authority.host_certificate(request.csr, HOST, ADDRESS)
        return RegistrationAnswer(certificate, authority.control_ca, authority.hosts_ca)

    async def until_renewed() -> None:
        task = asyncio.create_task(keep_renewed(renew, HOST, directory))
        async with asyncio.timeout(30):
            await renewed.wait()
        task.cancel()

    asyncio.run(until_renewed())


def test_a_certificate_that_ran_out_while_its_host_was_cut_off_is_one_sentence(tmp_path: Path) -> None:
    long_ago = Authority.open(tmp_path / "ca", Stopped(datetime.now(UTC) - timedelta(hours=25)))
    authority = Authority.open(tmp_path / "ca")
    key, csr = make_csr(HOST)
    late = Leaf(long_ago.host_certificate(csr, HOST, ADDRESS), key)
    write_leaf(tmp_path / "identity", late, authority.control_ca, authority.hosts_ca)
    here = tmp_path / "control"
    write_leaf(here, authority.control_leaf("control"), authority.control_ca, authority.hosts_ca)
    shutil.copyfile(here / "hosts-ca.pem", here / "control-ca.pem")  # it trusts hosts, as the listener for them does
    with served(make_app([], caller=HOST), here) as port:
        client = ControlClient(f"https://127.0.0.1:{port}", tmp_path / "identity")

        async def ask() -> None:
            with pytest.raises(
                Unreachable, match=r"certificate ran out at .* UTC while it was cut off, so nobody knows"
            ):
                await client.renew(RenewalRequest(csr))
            await client.close()

        asyncio.run(ask())
