"""`spot-runner demo valkey`: a Redis server in a microVM answers a steady client while its hosts are taken away."""
