"""AWS: spot and on-demand instances of one region, rented through EC2 fleets."""
