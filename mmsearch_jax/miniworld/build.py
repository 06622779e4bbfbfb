"""Makes the worlds of the mini-world on disk, and SFT conversations by the scripted teacher with the live tools."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from mmsearch_jax.core.errors import DataError
from mmsearch_jax.core.protocol import ImageSearch, TextSearch
from mmsearch_jax.core.search_api import SearchReply
from mmsearch_jax.data.chat import ChatRenderer
from mmsearch_jax.data.rows import Row, read_image
from mmsearch_jax.data.storage import write_rows
from mmsearch_jax.miniworld import teacher, worlds
from mmsearch_jax.miniworld.generated import GeneratedWorld
from mmsearch_jax.miniworld.real import RealWorld
from mmsearch_jax.rewards.match import matches
from mmsearch_jax.rollout.episode import observe, reply_note
from mmsearch_jax.rollout.tool_client import ToolClient
from mmsearch_jax.settings.rollout import EpisodeConfig


def build_training_world(
    folder: Path,
    num_lands: int,
    num_grpo_lands: int,
    num_sft_rows: int,
    num_grpo_rows: int,
    grpo_free_share: float,
    seed: int,
) -> None:
    """Writes the generated world: one corpus, and rows for SFT and for GRPO.

    GRPO asks about lands of its own: of those that SFT knows by heart it would not learn to read.
    Half of the SFT rows are search-free, and `grpo_free_share` of those for GRPO.
    """
    world = GeneratedWorld(num_lands + num_grpo_lands, seed)
    for_sft, for_grpo = worlds.split_world(world, num_lands)
    worlds.write_corpus(world, folder / "corpus")
    worlds.write_questions(for_sft, folder / "sft", num_sft_rows, seed + 1)
    worlds.write_questions(for_grpo, folder / "grpo", num_grpo_rows, seed + 2, grpo_free_share)


def build_evaluation_world(folder: Path, num_rows: int, seed: int) -> None:
    """Writes the real world: corpus and evaluation rows."""
    world = RealWorld()
    worlds.write_corpus(world, folder / "corpus")
    worlds.write_questions(world, folder / "eval", num_rows, seed)


async def write_conversations(
    rows: Sequence[Row],
    out: Path,
    client: ToolClient,
    episode: EpisodeConfig,
    renderer: ChatRenderer,
    progress: Callable[[], object] | None = None,
) -> collections.Counter[str]:
    """Has the teacher work through the rows with the live tools, and writes those whose answer is right.

    The share of search-free rows is kept by dropping as many of them as of the others.

    Returns:
      Counts by outcome ("kept", "no_answer", "wrong_answer", "unseen_answer", "balanced_away").

    Raises:
      DataError: no conversation is right.
      ToolError: the server cannot be reached.
    """
    counts: collections.Counter[str] = collections.Counter()
    gate = asyncio.Semaphore(16)

    async def work(row: Row) -> Row | None:
        async with gate:
            finished, outcome = await _converse(row, client, episode, renderer)
        counts[outcome] += 1
        if progress:
            progress()
        return finished

    done = [row for row in await asyncio.gather(*(work(row) for row in rows)) if row is not None]
    required = [row for row in done if row.search_required]
    free = [row for row in done if not row.search_required]
    asked = sum(bool(row.search_required) for row in rows)
    wanted = round(len(required) * (len(rows) - asked) / asked) if asked else len(free)
    counts["balanced_away"] = max(0, len(free) - wanted)
    kept = sorted([*required, *free[:wanted]], key=lambda row: row.id)
    counts["kept"] = len(kept)
    if not kept:
        raise DataError(
            f"the teacher found no right answer in {len(rows)} rows ({dict(counts)}): does the server hold their world?"
        )
    write_rows(kept, out)
    return counts


async def _converse(
    row: Row, client: ToolClient, episode: EpisodeConfig, renderer: ChatRenderer
) -> tuple[Row | None, str]:
    image = read_image(row.image)

    async def call(action: TextSearch | ImageSearch) -> tuple[SearchReply, str]:
        if isinstance(action, TextSearch):
            reply = await client.text_search(action.query, episode.top_k_text, row.question)
        else:
            reply = await client.image_search(image, action.expression, episode.top_k_image)
        observation, _ = observe(episode, renderer, action, reply.results, reply_note(action, reply), reply.summary)
        return reply, observation

    turns, answer = await teacher.converse(row, call)
    if turns is None or answer is None:
        return None, "no_answer"
    if not matches(answer, row.answers):
        return None, "wrong_answer"
    return dataclasses.replace(row, turns=turns), "right"
