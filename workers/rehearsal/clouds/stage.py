"""The stage with two clouds in the place of the spot market.

    <p>-internet   moto's server ◀── AWS with its faults        Hetzner        the machines of both ──▶ hosts
                   (127.0.0.1)       10.90.0.4:8701             10.90.0.4:8703

A host at AWS stands in its VPC behind a NAT and dials out; one at Hetzner has the address that its API tells.
"""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Mapping, Sequence
from typing import Final

import httpx

from workers.rehearsal import places as at
from workers.rehearsal.aws.catalogue import KIND, REGION
from workers.rehearsal.aws.owner import BUCKET, IMAGE, KEYS, NETWORK, AwsOwner, queue_url
from workers.rehearsal.clouds.offers import CURRENCY, LOCATION, SERVER_TYPE, offers
from workers.rehearsal.processes import Running
from workers.rehearsal.stage import CALL_LIMIT_S, Stage
from workers.rehearsal.topology import Plug, Topology

HETZNER_IMAGE: Final = {"spot-runner/image": "pvm"}
MOTO: Final = "moto.server"


class CloudStage(Stage):
    """The machinery of one rehearsal that rents at AWS and at Hetzner."""

    sellers = "AWS, Hetzner"

    def lay_network(self, *, with_window: bool) -> None:
        super().lay_network(with_window=with_window)
        Topology(self.places, self.journal).wire("internet", Plug("eth1", at.UNDERLAY, at.CLOUDS))

    def sell_out(self, times: int) -> None:
        """Let EC2 answer so many orders with InsufficientInstanceCapacity."""
        self._post(f"{at.AWS_URL}/_simulator/sold-out", {"instance_type": KIND, "times": times})

    def calls(self) -> Mapping[str, int]:
        """Return how often each call was made at AWS."""

        def ask() -> Mapping[str, int]:
            told = httpx.get(f"{at.AWS_URL}/_simulator/calls", timeout=CALL_LIMIT_S, trust_env=False)
            found: Mapping[str, int] = told.raise_for_status().json()
            return found

        return self.in_internet(ask)

    # ------------------------------------------------------------ instead of the market

    def _open_market(self) -> Running:
        """Open both clouds, and then what makes their machines."""
        loopback = ("-H", "127.0.0.1", "-p", str(at.MOTO_PORT))
        token = self.places.state / "keys" / "hetzner"
        token.write_text(secrets.token_hex(32))
        moto = self.start("moto", "internet", (sys.executable, "-m", MOTO, *loopback))
        aws = self._python("workers.rehearsal.aws", "--listen", f"{at.CLOUDS}:{at.AWS_PORT}", "--moto", at.MOTO_URL)
        hetzner = self._python(
            "workers.rehearsal.hetzner",
            *("--listen", f"{at.CLOUDS}:{at.HETZNER_PORT}", "--token-file", str(token), "--network", str(at.HETZNER)),
        )
        self._wait_port(moto, "internet", "127.0.0.1", at.MOTO_PORT)
        for name, command, port in (("aws", aws, at.AWS_PORT), ("hetzner", hetzner, at.HETZNER_PORT)):
            self._wait_port(self.start(name, "internet", command), "internet", str(at.CLOUDS), port)
        self._subnets = self.in_internet(lambda: AwsOwner(at.MOTO_URL).furnish())
        self._post(f"{at.HETZNER_URL}/_simulator/images", {"description": "spot-runner", "labels": HETZNER_IMAGE})
        return self.start("market", "internet", self._python("workers.rehearsal.clouds", self._estate()))

    def _rented_from(self) -> Mapping[str, object]:
        """Return the settings of both clouds."""
        file = self.places.state / "offers.json"
        file.write_text(json.dumps(offers(), indent=2))
        return {**self._aws_settings(self._subnets), **self._hetzner_settings(), "OFFERS_FILE": file} | {
            # What there is stands in that file, so nobody has to be asked for it.
            "ASK_OFFERS": "false",
            # The target is bought when it is needed: how that goes is what this play shows.
            "EVACUATION_ROOM": "false",
            "CURRENCY": CURRENCY,
            "HOST_NATS": json.dumps([str(at.NATS)]),
            "OBJECTS_BUCKET": BUCKET,
            "OBJECTS_REGION": REGION,
            "OBJECTS_ENDPOINT": at.AWS_URL,
        }

    def _aws_settings(self, subnets: Sequence[str]) -> Mapping[str, object]:
        told = {
            "REGION": REGION,
            "SUBNETS": json.dumps(list(subnets)),
            "INSTANCE_TYPES": json.dumps([KIND]),
            "KVM_IMAGE": IMAGE,
            "CONTROL_SOURCE": str(NETWORK),
            "EVENTS_QUEUE": queue_url(at.AWS_URL),
            "ENDPOINT": at.AWS_URL,
        }
        return {f"AWS_{name}": value for name, value in told.items()}

    def _hetzner_settings(self) -> Mapping[str, object]:
        told = {
            "TOKEN_FILE": self.places.state / "keys" / "hetzner",
            "LOCATIONS": json.dumps([LOCATION]),
            "SERVER_TYPES": json.dumps([SERVER_TYPE]),
            "ENDPOINT": f"{at.HETZNER_URL}/v1",
        }
        return {f"HETZNER_{name}": value for name, value in told.items()}

    def _credentials(self) -> Mapping[str, str]:
        return KEYS

    def _post(self, url: str, body: Mapping[str, object]) -> None:
        self.in_internet(lambda: httpx.post(url, json=body, timeout=CALL_LIMIT_S, trust_env=False).raise_for_status())

    @staticmethod
    def _python(module: str, *arguments: str) -> tuple[str, ...]:
        return (sys.executable, "-m", module, *arguments)
