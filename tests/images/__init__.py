"""A host image booted on this machine, with a control plane beside it: `./dev image`."""
