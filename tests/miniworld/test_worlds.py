"""The two worlds on disk, and the teacher's conversations with the real server."""

import asyncio
import json

import numpy as np
import pytest

from mmsearch_jax.core.errors import DataError, ToolUnavailable
from mmsearch_jax.core.protocol import Answer, ImageSearch, TextSearch, parse_turn
from mmsearch_jax.data.chat import ChatRenderer
from mmsearch_jax.data.storage import read_rows
from mmsearch_jax.jobs.search_server import start_server
from mmsearch_jax.miniworld import build, facts, questions, worlds
from mmsearch_jax.miniworld.generated import GeneratedWorld
from mmsearch_jax.miniworld.real import RealWorld
from mmsearch_jax.models.tokenizer import load_tokenizer
from mmsearch_jax.rollout.tool_client import ToolClient
from mmsearch_jax.settings.rollout import EpisodeConfig

SIZES = {
    "num_lands": 16,
    "num_grpo_lands": 8,
    "num_sft_rows": 24,
    "num_grpo_rows": 8,
    "grpo_free_share": 0.5,
    "seed": 0,
}
RULES = EpisodeConfig(prompt_style="short", observation_max_tokens=72, top_k_text=2, top_k_image=2)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("train")
    build.build_training_world(folder, **SIZES)
    return folder


def test_the_worlds_share_no_entity_and_no_value():
    real = RealWorld()
    generated = GeneratedWorld(160, seed=0)

    def named(world):
        return {entity.name.casefold() for entity in world.entities} | {
            entity.title.casefold() for entity in world.entities
        }

    assert not named(real) & named(generated)
    for key in ("capital", "currency", "highest_point", "anthem"):
        values = [{e.facts[key].casefold() for e in w.entities if key in e.facts} for w in (real, generated)]
        assert not values[0] & values[1]


def test_sft_and_grpo_meet_different_entities_of_one_world(world):
    met = [
        {placed.entity for row in read_rows(world / stage) for placed in row.placements} for stage in ("sft", "grpo")
    ]
    assert met[0] and met[1] and not met[0] & met[1]
    regions = worlds.split_world(GeneratedWorld(24, 0), 16)
    for region in regions:
        lands = {e.name for e in region.entities if e.kind == "flag"}
        assert {e.place for e in region.entities if e.kind == "monument"} <= lands
        assert {e.kind for e in region.entities} == {"flag", "monument", "animal"}
    assert sum(len(region.entities) for region in regions) == 60


def test_real_facts_have_only_known_attributes():
    assert {key for entity in RealWorld().entities for key in entity.facts} <= set(facts.ATTRIBUTES)


def test_rows_are_half_search_free_and_balanced_and_depend_on_the_seed_alone(world, tmp_path):
    rows = read_rows(world / "sft")
    kinds = [row.kind for row in rows]
    assert (kinds.count("visual"), kinds.count("crop"), kinds.count("two_hop"), kinds.count("whole_image")) == (
        12,
        4,
        4,
        4,
    )
    build.build_training_world(tmp_path / world.name, **SIZES)
    again = read_rows(tmp_path / world.name / "sft")
    assert [(row.question, row.answers, row.placements) for row in rows] == [
        (r.question, r.answers, r.placements) for r in again
    ]


def test_the_corpus_does_not_tell_what_a_picture_shows_but_by_its_pixels_and_text(world):
    for line in (world / "corpus" / "images.jsonl").open(encoding="utf-8"):
        record = json.loads(line)
        assert record["file"] == f"images/{record['id']}.png"
        assert record["id"].isdigit()


def converse(rows, out, url):
    async def work():
        client = ToolClient(url)
        try:
            renderer = ChatRenderer(load_tokenizer("assets/tiny-base"))
            return await build.write_conversations(rows, out, client, RULES, renderer)
        finally:
            await client.close()

    return asyncio.run(work())


def test_the_teacher_finds_the_answers_with_the_live_tools_and_keeps_the_balance(world, tmp_path):
    with start_server(world / "corpus") as server:
        counts = converse(read_rows(world / "sft"), tmp_path / "rows.jsonl", server.url)
    rows = read_rows(tmp_path / "rows.jsonl")
    assert counts["kept"] == len(rows) >= 18
    assert sum(row.search_required for row in rows) == pytest.approx(len(rows) / 2, abs=1)
    for row in rows:
        actions = [parse_turn(turn.text).action for turn in row.turns]
        assert isinstance(actions[-1], Answer)
        assert all(turn.observation for turn in row.turns[:-1])
        if row.kind == "two_hop":
            assert [type(action) for action in actions] == [ImageSearch, TextSearch, TextSearch, Answer]
        if row.search_required:
            # The teacher's answer occurs in its last observation.
            assert actions[-1].text in row.turns[-2].observation


def test_a_server_that_is_down_is_an_error_not_an_empty_set(world, tmp_path):
    with pytest.raises(ToolUnavailable, match="no search server"):
        converse(read_rows(world / "sft")[:4], tmp_path / "rows.jsonl", "http://127.0.0.1:9")


def test_rows_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(DataError, match="no rows at"):
        read_rows(tmp_path / "none.jsonl")
    (tmp_path / "rows.jsonl").write_text(
        '{"id": "a", "image": "i", "question": "q", "answers": ["x"], "kind": "odd"}\n'
    )
    with pytest.raises(DataError, match="line 1: kind: unknown kind 'odd'"):
        read_rows(tmp_path)


def test_flags_that_look_alike_share_their_answers():
    world = RealWorld()
    chad, romania = (next(e for e in world.entities if e.name == name) for name in ("Chad", "Romania"))
    question = questions.whole_image(np.random.default_rng(0), chad, ["capital"])
    assert worlds._with_twins(world, chad, question).answers == (chad.facts["capital"], romania.facts["capital"])
