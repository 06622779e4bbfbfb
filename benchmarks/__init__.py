"""Benchmarks: commands that print figures, and with `--json FILE` write them as JSON."""
