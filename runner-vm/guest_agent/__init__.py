"""What runs inside every runner microVM: it answers the host, gives the guest its identity and starts the runner."""
