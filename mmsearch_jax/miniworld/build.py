"""Writes the mini-world's worlds to disk, and the scripted teacher's SFT conversations with the live tools."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from mmsearch_jax.core.errors import DataError
from mmsearch_jax.core.trajectory import Status, Trajectory
from mmsearch_jax.data.chat import ChatRenderer
from mmsearch_jax.data.rows import ConversationTurn, Row, read_image
from mmsearch_jax.data.storage import write_rows
from mmsearch_jax.miniworld import teacher, worlds
from mmsearch_jax.miniworld.generated import GeneratedWorld
from mmsearch_jax.miniworld.real import RealWorld
from mmsearch_jax.rewards.match import matches
from mmsearch_jax.rollout.endpoint_episode import Transcript, play_episode
from mmsearch_jax.rollout.episode import Episode, Finish, Generation
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

    GRPO has its own lands: SFT has memorised the facts of its lands, so that reading would not be needed there.
    Half of the SFT rows are search-free; of the GRPO rows, `grpo_free_share` are.
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
    rules: EpisodeConfig,
    renderer: ChatRenderer,
    progress: Callable[[], object] | None = None,
) -> collections.Counter[str]:
    """The teacher answers the rows with the live tools; the conversations with a right answer are written.

    Search-free conversations are dropped until their share is that of the input rows.

    Returns:
      Counts by outcome: "right", "wrong_answer" or the status of an episode without an answer. The counts "kept" and
      "balanced_away" split the right ones.

    Raises:
      DataError: no conversation is right.
      ToolError: the server cannot be reached.
    """
    counts: collections.Counter[str] = collections.Counter()
    gate = asyncio.Semaphore(16)

    async def work(row: Row) -> Row | None:
        async with gate:
            finished, outcome = await _converse(row, client, rules, renderer)
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
    row: Row, client: ToolClient, rules: EpisodeConfig, renderer: ChatRenderer
) -> tuple[Row | None, str]:
    """The row with its conversation and "right", or None and the reason."""
    image = read_image(row.image)
    transcript = Transcript(renderer, image)
    # The image counts as no tokens: the limits are on text.
    episode = Episode(Trajectory(row.id, row.id, row.id), row.question, [], [], rules, transcript)

    async def write_turn(max_tokens: int) -> Generation:
        text = teacher.next_turn(row, episode.trajectory.turns)
        if text is None:
            raise _LeadsNowhere
        return transcript.turn(text, Finish.CLOSED)

    try:
        played = await play_episode(episode, write_turn, client, row.question, image)
    except _LeadsNowhere:
        return None, Status.NO_ANSWER
    if played.status != Status.ANSWERED:
        return None, played.status
    if not matches(played.answer, row.answers):
        return None, "wrong_answer"
    turns = tuple(ConversationTurn(turn.text, turn.observation) for turn in played.turns)
    return dataclasses.replace(row, turns=turns), "right"


class _LeadsNowhere(Exception):
    """The teacher has no next turn."""
