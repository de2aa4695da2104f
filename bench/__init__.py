"""Benchmarks that anyone can run: ``vitlite bench NAME``, or ``python -m vitlite.bench NAME``."""
