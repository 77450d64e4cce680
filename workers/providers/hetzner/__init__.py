"""Hetzner Cloud: servers at a fixed price, billed by begun hours; no spot market and no nested virtualization."""
