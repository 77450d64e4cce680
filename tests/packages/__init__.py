"""A package that is made here and runs one job in a guest of it: `./dev package try`."""
