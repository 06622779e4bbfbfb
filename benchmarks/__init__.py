"""Benchmarks: commands that print figures; each writes them as JSON with `--json FILE`."""
