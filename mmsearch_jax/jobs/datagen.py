"""`mmsearch datagen`: from a config and a work folder to rows.array_record and its datasheet."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tqdm

from mmsearch_jax.core.chat_client import ChatClient, ChatEndpoint
from mmsearch_jax.core.config_files import as_arguments, secret
from mmsearch_jax.core.errors import ConfigError, DataError
from mmsearch_jax.data.chat import ChatRenderer
from mmsearch_jax.data.rows import Row
from mmsearch_jax.data.storage import stream_rows, write_rows
from mmsearch_jax.datagen import datasheet
from mmsearch_jax.datagen.balance import BalanceCandidate, choose
from mmsearch_jax.datagen.budget import DatagenBudget
from mmsearch_jax.datagen.conversation import Teacher
from mmsearch_jax.datagen.generate import Generator, Labelling, outcomes
from mmsearch_jax.datagen.journal import Journal, JournalEntry
from mmsearch_jax.models.tokenizer import load_tokenizer
from mmsearch_jax.rewards.judge import Judge
from mmsearch_jax.rollout.episode import EpisodeConfig
from mmsearch_jax.rollout.tool_client import ToolClient

Config = Any
"""An `ml_collections.ConfigDict`, whose values have no types that a checker could follow."""
ROWS, JOURNAL = "rows.array_record", "journal.jsonl"
_READY_S = 10.0


def run_datagen(config: Config, workdir: Path, *, show_progress: bool = True) -> dict[str, Any]:
    """Makes a set, or goes on with one; returns its datasheet.

    Raises:
      ConfigError: a value that cannot be.
      CheckpointError: `tokenizer` is a folder without a tokenizer.
      DataError: seeds that cannot be read, a work folder of another run, or no conversation that may be kept.
      ToolUnavailable: no search server answers.
      ToolError: too many calls in a row broke.
    """
    _check(config)
    tokenizer = load_tokenizer(config.tokenizer)
    settings = {
        "seeds": config.seeds.to_dict(),
        "episode": config.episode.to_dict(),
        "tokenizer": _digest(tokenizer),
        "teacher": config.teacher.model,
        "target": config.labels.target.model,
        "samples": config.labels.samples,
        "categories": config.labels.categories,
        "required_below": config.labels.required_below,
        "seed": config.seed,
    }
    journal = Journal(workdir / JOURNAL, settings)
    budget = DatagenBudget(config.budget.to_dict(), journal.spent)
    try:
        stopped = asyncio.run(_generate(config, ChatRenderer(tokenizer), journal, budget, show_progress))
    finally:
        journal.close(dict(budget.spent))
    chosen = _chosen(config, list(journal.entries.values()))
    if not chosen:
        raise DataError(
            f"no set can be made of {len(journal.entries)} seeds ({outcomes(list(journal.entries.values()))}): "
            f"{stopped or 'all were worked through'}; see {workdir / JOURNAL}, or change balance.search_share"
        )
    write_rows(_conversations(config, chosen, journal), workdir / ROWS)
    sheet = {
        "set": datasheet.describe(stream_rows(workdir / ROWS)),
        "stages": outcomes(list(journal.entries.values())),
        "spent": dict(budget.spent),
        "stopped": stopped or "all seeds were worked through",
        "settings": settings,
        "balance": config.balance.to_dict(),
    }
    datasheet.write(workdir, sheet)
    return sheet


def _endpoint(config: Config, section: str) -> ChatEndpoint:
    try:
        return ChatEndpoint(**as_arguments(config))
    except ConfigError as error:
        raise ConfigError(f"{section}: {error}") from error


def _check(config: Config) -> None:
    for key, value in (
        ("seeds.path", config.seeds.path),
        ("teacher.url", config.teacher.url),
        ("tools.url", config.tools.url),
        ("tokenizer", config.tokenizer),
    ):
        if not value:
            hint = " (the folder of the policy that is to be trained)" if key == "tokenizer" else ""
            raise ConfigError(f"{key} is empty: set it with --config.{key}=...{hint}")
    for key, value in (("balance.search_share", config.balance.search_share), ("seeds.share", config.seeds.share)):
        if not 0 <= value <= 1:
            raise ConfigError(f"{key} is {value}, must lie in [0, 1]")
    if config.concurrency < 1 or config.labels.samples < 1 or not config.labels.categories:
        raise ConfigError("concurrency and labels.samples must be at least 1, and labels.categories may not be empty")


def _digest(tokenizer: Any) -> str:
    """Equal for equal tokenizers, wherever their folders are."""
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    return hashlib.sha256(backend.to_str().encode()).hexdigest()[:16]


async def _generate(
    config: Config, renderer: ChatRenderer, journal: Journal, budget: DatagenBudget, show_progress: bool
) -> str | None:
    token = secret(config.tools.token_env, "config.tools.token_env")
    tools = ToolClient(
        config.tools.url, config.tools.deadline_s, max_concurrency=config.tools.max_concurrency, token=token
    )
    chat = ChatClient(_endpoint(config.teacher, "teacher"), "teacher", "turn")
    target = None
    if config.labels.target.url:
        target = ChatClient(_endpoint(config.labels.target, "labels.target"), "target policy", "answer")
    judge = Judge(_endpoint(config.judge, "judge")) if config.judge.url else None
    labelling = Labelling(tuple(config.labels.categories), target, config.labels.samples, config.labels.required_below)
    teacher = Teacher(chat, tools, EpisodeConfig(**as_arguments(config.episode)), renderer, budget)
    generator = Generator(teacher, chat, labelling, budget, judge, config.max_failures)
    kept = sum(entry.outcome == "kept" for entry in journal.entries.values())
    try:
        await tools.wait_ready(_READY_S)
        with tqdm.tqdm(desc="datagen", unit="seed", disable=not show_progress) as bar:

            def ended(entry: JournalEntry) -> None:
                nonlocal kept
                kept += entry.outcome == "kept"
                bar.update()
                bar.set_postfix(kept=kept, refresh=False)

            return await generator.run(_seeds(config), journal, config.concurrency, ended)
    finally:
        for client in (tools, chat, target, judge):
            if client is not None:
                await client.close()


def _seeds(config: Config) -> Iterator[Row]:
    """The questions to work through: a share of the file, the same ones in every run; of one id, the first."""
    seen: set[str] = set()
    for row in stream_rows(config.seeds.path):
        if row.id in seen:
            continue
        seen.add(row.id)
        digest = hashlib.sha256(f"{config.seed}/{row.id}".encode()).digest()
        if int.from_bytes(digest[:8], "big") < config.seeds.share * 2**64:
            yield row


def _chosen(config: Config, entries: list[JournalEntry]) -> set[str]:
    candidates = [
        BalanceCandidate(entry.id, entry.category, bool(entry.search_required))
        for entry in entries
        if entry.outcome == "kept"
    ]
    # As they come to an end is chance: the choice must not hang on it.
    candidates.sort()
    balance = config.balance
    return {candidate.id for candidate in choose(candidates, balance.size, balance.search_share, config.seed)}


def _conversations(config: Config, chosen: set[str], journal: Journal) -> Iterator[Row]:
    for row in _seeds(config):
        if row.id in chosen:
            entry = journal.entries[row.id]
            provenance = row.provenance | {
                "made_by": "datagen",
                "teacher": config.teacher.model,
                "search_required_by": entry.measured_by,
            }
            yield dataclasses.replace(
                row,
                turns=entry.turns,
                category=entry.category,
                search_required=entry.search_required,
                provenance=provenance,
            )
