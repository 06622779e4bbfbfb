"""The scripted teacher's conversations are equal to those of a rollout."""

import asyncio

from mmsearch_jax.data.rows import Row
from mmsearch_jax.data.storage import read_rows
from mmsearch_jax.miniworld import build
from mmsearch_jax.settings.rollout import EpisodeConfig
from tests.data.rows import jpeg
from tests.rollout.replay import RENDERER, CannedTools, assert_sft_reads_what_rollout_read

RULES = EpisodeConfig(
    prompt_style="short", max_tool_calls=2, max_image_searches=1, observation_max_tokens=50, top_k_text=2, top_k_image=2
)


def test_sft_token_ids_are_those_of_the_rollout_that_played_the_same_turns(tmp_path):
    meta = {"form": "land", "attribute": "capital", "expression": "the flag on the left"}
    asked = Row("r", jpeg(), "What is the capital of this land?", ("Ostrin",), "crop", True, meta=meta)
    made = build.write_conversations([asked], tmp_path / "rows.jsonl", CannedTools(), RULES, RENDERER)  # type: ignore[arg-type]
    assert asyncio.run(made)["kept"] == 1
    (row,) = read_rows(tmp_path / "rows.jsonl")
    assert len(row.turns) == 3 and "Answer now." in (row.turns[1].observation or "")
    assert_sft_reads_what_rollout_read(row, RULES)
