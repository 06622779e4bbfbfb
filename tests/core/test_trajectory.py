"""The record of an episode: it is append-only, and equal after a JSON round trip."""

import json

import pytest

from mmsearch_jax.core import trajectory as tr
from mmsearch_jax.core.errors import DataError
from mmsearch_jax.core.protocol import Answer, ImageSearch, Invalid, TextSearch
from mmsearch_jax.core.search_api import SearchResult


def two_turns() -> tr.Trajectory:
    episode = tr.Trajectory("q1/0", "q1", "q1", seed=3, image_grids=[(1, 4, 4)])
    episode.append([1, 2, 3, 4], tr.PROMPT)
    episode.append_sampled([5, 6, 7], [-1.0, -2.0, -1.0])
    episode.append([8, 9, 8, 9], tr.OBSERVATION)
    episode.append_sampled([5, 7], [-3.0, -1.0])
    tool = tr.ToolRecord("image_search", "the flag", (0, 1, 2, 3), True, (SearchResult("a", "b"),), None, 3.0)
    episode.turns = [
        tr.Turn("x", "r", ImageSearch("the flag"), 4, 7, "<information>", tool),
        tr.Turn("y", "r", Answer("z"), 11, 13),
    ]
    return episode


def test_the_docstring_example_holds():
    episode = two_turns()
    assert episode.provenance == [0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 1, 1]
    assert episode.loss_mask == [source == tr.SAMPLED for source in episode.provenance]
    assert episode.logprobs == [0, 0, 0, 0, -1, -2, -1, 0, 0, 0, 0, -3, -1]
    assert episode.num_sampled == 5


def test_sampled_tokens_need_logprobs():
    with pytest.raises(AssertionError, match="append_sampled"):
        two_turns().append([1], tr.SAMPLED)


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (tr.ToolRecord("text_search", "q"), "text"),
        (tr.ToolRecord("image_search"), "whole_image"),
        (tr.ToolRecord("image_search", "the flag"), "crop"),
    ],
)
def test_a_search_is_of_text_the_whole_image_or_a_crop(call, kind):
    assert call.kind == kind


def test_calls_that_were_refused_are_not_counted():
    episode = two_turns()
    refused = tr.ToolRecord("image_search", None, refused=True)
    episode.turns.append(tr.Turn("x", "r", ImageSearch(), 4, 7, "n", refused))
    assert len(episode.tool_calls()) == 1 and episode.tool_calls("text_search") == []


@pytest.mark.parametrize("action", [TextSearch("q"), ImageSearch(None), ImageSearch("e"), Answer("a"), Invalid("w")])
def test_json_lines_give_the_same_trajectory(tmp_path, action):
    episode = two_turns()
    episode.turns.append(tr.Turn("t", None, action, 0, 0))
    tr.write_jsonl([episode, episode], tmp_path / "deep" / "t.jsonl")
    assert list(tr.read_jsonl(tmp_path / "deep" / "t.jsonl")) == [episode, episode]


def test_a_broken_line_is_named(tmp_path):
    record = two_turns().to_json()
    record["logprobs"].pop()
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps(two_turns().to_json()) + "\n" + json.dumps(record) + "\n")
    with pytest.raises(DataError, match="line 2.*differ in length"):
        list(tr.read_jsonl(path))
    path.write_text("{}\n")
    with pytest.raises(DataError, match="line 1: not a trajectory"):
        list(tr.read_jsonl(path))
    with pytest.raises(DataError, match="no trajectories at"):
        list(tr.read_jsonl(tmp_path / "absent"))


def test_infrastructure_failures_are_told_apart():
    episode = two_turns()
    for status in tr.Status:
        episode.status = status
        assert episode.infrastructure_failure == (
            status in ("tool_failed", "policy_failed", "judge_failed", "deadline", "surplus", "cancelled", "unusable")
        )


def test_a_status_is_its_word_in_json_and_no_other_word_is_read():
    episode = two_turns()
    episode.status = tr.Status.NO_ANSWER
    assert json.loads(json.dumps(episode.to_json()))["status"] == "no_answer"
    assert tr.Trajectory.from_json(episode.to_json()).status is tr.Status.NO_ANSWER
    with pytest.raises(DataError, match="not a trajectory record.*lost"):
        tr.Trajectory.from_json({**episode.to_json(), "status": "lost"})
