"""The benchmarks' own metrics: pure functions of strings, one file per source; `table` lists them by name."""
