"""What the simulated Hetzner Cloud sells: an extract, in its form; names and sizes are real, prices are of the kind."""

from __future__ import annotations

from typing import Final

from workers.rehearsal.hetzner.records import Location, ServerType

LOCATIONS: Final = (
    Location(1, "fsn1", "Falkenstein", "DE", "eu-central", 50.47612, 12.370071),
    Location(2, "nbg1", "Nuremberg", "DE", "eu-central", 49.452102, 11.076665),
    Location(3, "hel1", "Helsinki", "FI", "eu-central", 60.169855, 24.938379),
    Location(4, "ash", "Ashburn, VA", "US", "us-east", 39.045821, -77.487073),
)


def _europe(price: str) -> dict[str, str]:
    return dict.fromkeys(("fsn1", "nbg1", "hel1"), price)


SERVER_TYPES: Final = (
    ServerType(22, "cpx11", 2, 2, 40, "shared", {**_europe("0.0070000000"), "ash": "0.0080000000"}),
    ServerType(25, "cpx41", 8, 16, 240, "shared", {**_europe("0.0408000000"), "ash": "0.0488000000"}),
    ServerType(45, "cax31", 8, 16, 160, "shared", _europe("0.0200000000"), architecture="arm"),
    ServerType(97, "ccx33", 8, 32, 240, "dedicated", {**_europe("0.0777000000"), "ash": "0.0887000000"}),
    ServerType(98, "ccx43", 16, 64, 360, "dedicated", {**_europe("0.1546000000"), "ash": "0.1746000000"}),
    ServerType(106, "cx42", 8, 16, 160, "shared", _europe("0.0263000000")),
    ServerType(107, "cx52", 16, 32, 320, "shared", _europe("0.0520000000")),
    ServerType(9, "cx41", 4, 16, 160, "shared", _europe("0.0216000000"), is_deprecated=True),
)
