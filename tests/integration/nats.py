"""Machines that nobody can dial."""

from __future__ import annotations

import subprocess

from tests.integration.wires import Place, Site


def behind_nat(site: Site, name: str, address: str) -> Place:
    """A host whose only way out is a machine that translates addresses and lets nobody in."""
    nat = site.add(f"nat{name}", eth0=f"underlay {address}/24")
    host = site.add(name)
    nat.ip("link", "add", "name", "inside", "type", "veth", "peer", "name", "eth0", "netns", host.name)
    for place, device, own in ((nat, "inside", "192.168.1.1/24"), (host, "eth0", "192.168.1.2/24")):
        place.ip("address", "add", own, "dev", device)
        place.ip("link", "set", device, "up")
    host.ip("route", "add", "default", "via", "192.168.1.1")
    rules = """
        table ip spot_nat {
          chain behind {
            type nat hook postrouting priority srcnat;
            oifname "eth0" masquerade
          }
          chain passing {
            type filter hook forward priority filter; policy drop;
            iifname "inside" accept
            ct state established,related accept
          }
        }
    """
    subprocess.run(
        ["ip", "netns", "exec", nat.name, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward; nft -f -"],
        input=rules,
        text=True,
        check=True,
        timeout=30,
    )
    return host
