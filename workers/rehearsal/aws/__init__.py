"""AWS for rehearsals and tests: moto's server, and in front of it what moto lacks."""
