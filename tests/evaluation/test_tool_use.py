"""Needless and missed searches, and self-correction, against values computed by hand."""

import pytest

from mmsearch_jax.core.protocol import Answer, TextSearch
from mmsearch_jax.core.trajectory import Status, ToolRecord, Trajectory, Turn
from mmsearch_jax.data.rows import Row
from mmsearch_jax.evaluation.metrics.by_name import METRICS
from mmsearch_jax.evaluation.sample import score
from mmsearch_jax.evaluation.tool_use import corrected, tool_use


def sample(name, answer, *searches, needed=None):
    """A sample; each search is its query and its observation."""
    row = Row(name, "i.jpg", "q?", ("Lima", "Ciudad de los Reyes"), "", needed)
    turns = [
        Turn("", None, TextSearch(query), 0, 0, f"<information>{seen}</information>", ToolRecord("text_search", query))
        for query, seen in searches
    ]
    turns.append(Turn("", None, Answer(answer), 0, 0))
    return score(row, Trajectory(name, name, "g", status=Status.ANSWERED, answer=answer, turns=turns), METRICS["match"])


NOTHING, SHOWN = "[1] Peru: a country", "[1] Peru: its capital is LIMA."


@pytest.mark.parametrize(
    ("answer", "searches", "outcome"),
    [
        ("Lima", [("peru", NOTHING), ("capital of peru", SHOWN)], True),
        ("Quito", [("peru", NOTHING), ("capital of peru", SHOWN)], False),  # shown, and still wrong
        ("Lima", [("peru", NOTHING), ("peru again", NOTHING)], False),  # right, but not from a search
        ("Lima", [("peru", NOTHING), ("peru", SHOWN)], False),  # the same query
        ("Lima", [("peru", NOTHING)], False),  # not refined
        ("Lima", [("peru", SHOWN), ("capital", SHOWN)], None),  # nothing to correct
        ("Lima", [], None),
        ("Lima", [("peru", "[1] Climate of Peru"), ("c", "[1] ciudad de los reyes, they say")], True),
    ],
)
def test_self_correction_is_a_refined_query_that_led_to_the_answer(answer, searches, outcome):
    assert corrected(sample("r", answer, *searches)) is outcome


def test_searches_are_needless_or_missed_by_the_rows_flags_or_by_a_direct_run():
    samples = [
        sample("a", "Lima", ("q", SHOWN), needed=False),
        sample("b", "Lima", needed=False),
        sample("c", "Quito", needed=True),
        sample("d", "Quito", ("q", NOTHING), needed=True),
        sample("e", "Lima"),
    ]
    use = tool_use(samples)
    assert use["needless"] == {"by": "flag", "n": 2, "share": 0.5}
    assert use["missed"] == {"by": "flag", "n": 2, "share": 0.5}
    assert use["calls_per_correct_answer"] == pytest.approx(2 / 3)
    # In the direct run, a, b and d are right, c is wrong, and e is missing.
    use = tool_use(samples, {"a": True, "b": True, "c": False, "d": True})
    assert use["needless"] == {"by": "direct run", "n": 3, "share": pytest.approx(2 / 3)}
    assert use["missed"] == {"by": "direct run", "n": 1, "share": 1.0}
    assert tool_use([])["calls_per_correct_answer"] is None
