"""Counts of the kinds of tool use."""

import pytest

from mmsearch_jax.report.tool_use import PARTS, tool_use, way_of


@pytest.mark.parametrize(
    ("tools", "way"),
    [
        ([], "none"),
        (["text"], "text"),
        (["text", "text"], "multi_text"),
        (["crop"], "crop"),
        (["whole_image"], "whole_image"),
        (["crop", "text"], "mixed"),
        (["text", "whole_image", "text"], "mixed"),
    ],
)
def test_each_episode_is_used_tools_in_one_way(tools, way):
    assert way_of(tools) == way


def test_shares_add_up():
    use = tool_use("grpo", [[], ["text"], ["text"], ["crop", "text"]])
    assert use.n == 4 and use.shares == {**dict.fromkeys(PARTS, 0.0), "none": 0.25, "text": 0.5, "mixed": 0.25}
    assert tool_use("grpo", []) is None
