"""Plays a finished conversation's turns as a rollout, and compares it with SFT's rendering of the conversation."""

import asyncio

import numpy as np

from mmsearch_jax.core.protocol import TextSearch
from mmsearch_jax.core.search_api import SearchReply, SearchResult
from mmsearch_jax.core.trajectory import Status, Trajectory
from mmsearch_jax.data.chat import ChatRenderer
from mmsearch_jax.data.rows import Row, read_image
from mmsearch_jax.data.sequences import SequenceBuilder
from mmsearch_jax.images.processing import ImageProcessor, load_image
from mmsearch_jax.models.config import ModelConfig
from mmsearch_jax.models.tokenizer import load_tokenizer
from mmsearch_jax.rollout.episode import CallTool, Done, Episode, Finish, Generate, Generation
from mmsearch_jax.rollout.tool_client import call_tool
from mmsearch_jax.settings.rollout import EpisodeConfig

BASE = "assets/tiny-base"
RENDERER = ChatRenderer(load_tokenizer(BASE))
PROCESSOR = ImageProcessor.from_pretrained(BASE)
LONG = "a page that is longer than an observation may be " * 20


class CannedTools:
    """Answers image and text searches with fixed results that are longer than an observation; counts its calls."""

    def __init__(self):
        self.calls = 0

    async def text_search(self, query: str, top_k: int = 5, question: str = "") -> SearchReply:
        self.calls += 1
        return SearchReply((SearchResult("Velmora", f"Capital: Ostrin; {LONG}"),), "text_search")

    async def image_search(self, image: bytes, expression: str | None = None, top_k: int = 5) -> SearchReply:
        self.calls += 1
        return SearchReply((SearchResult("Flag of Velmora", LONG),), "image_search", grounded=expression != "nothing")


def rolled_out(row: Row, rules: EpisodeConfig, tools: CannedTools) -> Trajectory:
    """The trajectory of a policy that samples the row's turns, with the image's tokens in the prompt."""
    image = read_image(row.image)
    processed = PROCESSOR(load_image(image))
    trajectory, turns = Trajectory("t", row.id, row.id), iter(row.turns)
    counts = [PROCESSOR.num_tokens(processed.grid)]
    episode = Episode(trajectory, row.question, [processed.grid], counts, rules, RENDERER)
    need = episode.begin()
    while not isinstance(need, Done):
        if isinstance(need, Generate):
            ids = RENDERER.encode(next(turns).text)
            assert len(ids) <= need.max_tokens
            need = episode.generated(Generation(ids, [-1.0] * len(ids), Finish.CLOSED))
        elif isinstance(need, CallTool):
            reply = asyncio.run(call_tool(tools, need.action, need.top_k, row.question, image))
            need = episode.observed(need.action, reply)
    assert trajectory.status == Status.ANSWERED and next(turns, None) is None
    return trajectory


def assert_sft_reads_what_rollout_read(row: Row, rules: EpisodeConfig) -> None:
    """Asserts that the row's training sequence has the token ids and the loss mask of the rollout's trajectory."""
    trajectory = rolled_out(row, rules, CannedTools())
    builder = SequenceBuilder(RENDERER, ModelConfig.from_pretrained(BASE))
    sequence = builder.conversation(row, rules.prompt_style, [PROCESSOR(load_image(read_image(row.image)))])
    assert sequence.token_ids.tolist() == trajectory.token_ids
    assert np.array_equal(sequence.loss_weights > 0, trajectory.loss_mask)
    searches = [turn for turn in trajectory.turns if turn.tool is not None]
    assert any(isinstance(turn.action, TextSearch) for turn in searches)
    # The observations reached the limit, so they were cut.
    cut = [len(RENDERER.encode(turn.observation or "")) for turn in searches]
    assert min(cut) > rules.observation_max_tokens // 2 and max(cut) <= rules.observation_max_tokens
