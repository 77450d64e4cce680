"""`spot-runner drill`: interrupt running jobs again and again, and count what became of them."""
