"""A simulated GitHub for rehearsals and tests: `python -m workers.rehearsal.github --help`."""

from workers.rehearsal.github.client import SimulatorClient

__all__ = ["SimulatorClient"]
