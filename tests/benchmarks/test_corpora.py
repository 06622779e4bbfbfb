"""The slope of search time by corpus size."""

import pytest

from benchmarks.corpora import slopes


def test_an_engine_has_a_slope_where_it_was_measured_at_two_sizes():
    def figures(build, query):
        return {"build-cpu s": build, "cpu ms": query}

    measured = {
        ("fts5", 10_000): figures(1.0, 2.0),
        ("fts5", 1_000_000): figures(100.0, 2.0),
        ("graph", 10_000): figures(9.0, 1.0),
        ("exact", 10_000): figures(0.0, 1.0),
        ("exact", 1_000_000): figures(0.0, 10_000.0),
    }
    found = {name: row.value for name, row in slopes(measured, ["fts5", "tantivy", "exact", "graph"]).items()}
    assert found == pytest.approx(
        {
            "slope: fts5 build, 10,000 to 1,000,000": 1.0,
            "slope: fts5 query, 10,000 to 1,000,000": 0.0,
            "slope: exact query, 10,000 to 1,000,000": 2.0,
        }
    )
