"""Benchmarks; `uv run pytest benchmarks` runs them."""
