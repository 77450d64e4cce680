"""The whole service on one machine: a network of namespaces, a spot market, GitHub, and a job that must survive."""
