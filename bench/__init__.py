"""Measurements of speed and memory, as ratios to a named baseline in the same run. `make bench` writes RESULTS.md."""
