"""Ways to use tools, counted."""

import pytest

from mmsearch_jax.report.pairs import pairs
from mmsearch_jax.report.tool_use import PARTS, tool_use, way_of


@pytest.mark.parametrize(
    ("tools", "way"),
    [
        ([], "none"), (["text"], "text"), (["text", "text"], "multi_text"), (["crop"], "crop"),
        (["whole_image"], "whole_image"), (["crop", "text"], "mixed"), (["text", "whole_image", "text"], "mixed"),
    ],
)  # fmt: skip
def test_each_episode_is_used_tools_in_one_way(tools, way):
    assert way_of(tools) == way


def test_shares_add_up():
    use = tool_use("grpo", [[], ["text"], ["text"], ["crop", "text"]])
    assert use.n == 4 and use.shares == {**dict.fromkeys(PARTS, 0.0), "none": 0.25, "text": 0.5, "mixed": 0.25}
    assert tool_use("grpo", []) is None


def test_pairs_count_what_changed_on_common_questions_with_the_exact_test():
    before = {**{f"a{i}": False for i in range(5)}, **{f"b{i}": True for i in range(6)}, "only here": True}
    after = {**{f"a{i}": True for i in range(5)}, **{f"b{i}": i > 0 for i in range(6)}}
    (pair,) = pairs([("sft", before), ("grpo", after)], main=1)
    assert (pair.n, pair.became_right, pair.became_wrong) == (11, 5, 1)
    # 2 * (C(6, 0) + C(6, 1)) / 2 ** 6
    assert pair.p == pytest.approx(14 / 64) and pair.points == pytest.approx(400 / 11)
    assert pairs([("sft", before), ("other", {"z": True})], main=1) == []


def test_each_is_compared_with_the_main_one_in_the_order_of_the_table():
    right = {"a": True}
    made = pairs([("direct", right), ("grpo", right), ("no_crop", right)], main=1)
    assert [(pair.first, pair.second) for pair in made] == [("direct", "grpo"), ("grpo", "no_crop")]
