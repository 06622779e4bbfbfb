"""Summaries, against figures counted by hand."""

import pytest

from mmsearch_jax.core.protocol import Answer
from mmsearch_jax.core.trajectory import Status, ToolRecord, Trajectory, Turn
from mmsearch_jax.data.rows import Placement, Row
from mmsearch_jax.evaluation.metrics.by_name import METRICS
from mmsearch_jax.evaluation.sample import score
from mmsearch_jax.evaluation.scoring import box_iou, failure_warning, summarise


def sample(kind, answer, gold="Paris", tools=(), status=Status.ANSWERED, target=None, meta=None):
    placements = (Placement("e", (0, 0, 10, 10)),) * 3
    row = Row("r", "i.jpg", "q?", (gold,), kind, kind != "visual", placements, target, meta or {})
    turns = [Turn("", None, Answer(""), 0, 0, tool=tool) for tool in tools]
    return score(row, Trajectory("t", "r", "g", status=status, answer=answer, turns=turns), METRICS["match"])


def test_summary_equals_hand_counts():
    text = ToolRecord("text_search", "q")
    crop = ToolRecord("image_search", "the flag", box=(0, 0, 10, 5))
    samples = [
        sample("visual", "paris"),
        sample("visual", "Rome", tools=[text]),
        sample("crop", "Paris", tools=[crop, text], target=0),
        sample("crop", "Oslo", tools=[ToolRecord("image_search", None), text]),
        sample("two_hop", None, status=Status.TOOL_FAILED),
    ]
    summary = summarise(samples, name="x", mode="policy")
    assert summary["n"] == 4
    assert summary["infrastructure_failures"] == 1
    assert summary["warning"].startswith("1 of 5 episodes failed (20%) and are not in the accuracy")
    assert summarise(samples[:4], name="x")["warning"] is None
    assert [failure_warning(failed, 100) is None for failed in (0, 2, 3)] == [True, True, False]
    assert summary["accuracy"] == 0.5
    assert summary["by_kind"]["visual"]["accuracy"] == 0.5
    assert summary["by_kind"]["two_hop"]["n"] == 0
    assert summary["searches_per_question"] == 5 / 4
    assert summary["needless_search_rate"] == 0.5
    assert summary["searches_by_tool"] == {"text": 0.75, "whole_image": 0.25, "crop": 0.25}
    assert summary["crop_3_or_more_entities"]["n"] == 2
    assert summary["grounding"] == {"n": 1, "mean_iou": 0.5}
    assert summary["statuses"] == {"answered": 4, "tool_failed": 1}


def test_accuracy_by_form_counts_each_form_and_leaves_out_rows_without_one_and_failures():
    where, count = {"form": "where"}, {"form": "count"}
    samples = [
        sample("visual", "on the left", "on the left", meta=where),
        sample("visual", "on the right", "on the left", meta=where),
        sample("visual", "3", "3", meta=count),
        sample("visual", "3", "3"),
        sample("visual", None, status=Status.TOOL_FAILED, meta={"form": "colour"}),
    ]
    by_form = summarise(samples, name="x")["by_form"]
    assert {form: (group["n"], group["accuracy"]) for form, group in by_form.items()} == {
        "count": (1, 1.0),
        "where": (2, 0.5),
    }


def test_iou_of_boxes():
    assert box_iou((0, 0, 2, 2), (1, 1, 3, 3)) == pytest.approx(1 / 7)
    assert box_iou((0, 0, 1, 1), (5, 5, 6, 6)) == 0
