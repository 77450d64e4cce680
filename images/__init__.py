"""Host images: what a rented machine boots so that it can be a host."""
