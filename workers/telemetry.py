"""How spot-runner is told what is happening: structured events with bound ids."""
