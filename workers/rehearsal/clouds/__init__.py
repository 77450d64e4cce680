"""`./dev demo clouds`: the control plane rents at AWS and at Hetzner, as far as this machine can play them."""
