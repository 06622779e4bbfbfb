"""`mmsearch datagen`: from a config and a work directory to rows.array_record and its datasheet."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tqdm

from mmsearch_jax.core.chat_client import ChatClient
from mmsearch_jax.core.config_files import save
from mmsearch_jax.core.errors import DataError
from mmsearch_jax.core.settings import plain
from mmsearch_jax.data.chat import ChatRenderer
from mmsearch_jax.data.rows import Row, embed_images
from mmsearch_jax.data.storage import stream_rows, write_rows
from mmsearch_jax.datagen import datasheet
from mmsearch_jax.datagen.balance import BalanceCandidate, choose
from mmsearch_jax.datagen.budget import DatagenBudget
from mmsearch_jax.datagen.conversation import Teacher
from mmsearch_jax.datagen.generate import Generator, Labelling, outcomes
from mmsearch_jax.datagen.journal import Journal, JournalEntry
from mmsearch_jax.datagen.outcome import SeedOutcome
from mmsearch_jax.jobs.identities import JOURNAL, conversations
from mmsearch_jax.jobs.search_tools import tool_client
from mmsearch_jax.models.tokenizer import load_tokenizer
from mmsearch_jax.rewards.judge import Judge
from mmsearch_jax.settings.datagen import DatagenSettings

ROWS = "rows.array_record"
_READY_S = 10.0


def run_datagen(settings: DatagenSettings, workdir: Path, *, show_progress: bool = True) -> dict[str, Any]:
    """Makes a set, or resumes one; returns its datasheet.

    Raises:
      CheckpointError: `tokenizer` is a directory without a tokenizer.
      DataError: seeds cannot be read, the work directory belongs to another run, or no conversation can be kept.
      ToolUnavailable: no search server answers.
      ToolError: too many consecutive calls failed.
    """
    tokenizer = load_tokenizer(settings.tokenizer)
    identity = {**conversations(settings), "tokenizer": _digest(tokenizer)}
    journal = Journal(workdir / JOURNAL, identity)
    save(settings, workdir / "config.json")
    budget = DatagenBudget(plain(settings.budget), journal.spent)
    try:
        stopped = asyncio.run(_generate(settings, ChatRenderer(tokenizer), journal, budget, show_progress))
    finally:
        journal.close(dict(budget.spent))
    chosen = _chosen(settings, list(journal.entries.values()))
    stages = outcomes(list(journal.entries.values()))
    if not chosen:
        found = ", ".join(f"{count} {outcome}" for outcome, count in stages.items())
        raise DataError(
            f"no set can be made of {len(journal.entries)} seeds ({found}): "
            f"{stopped or 'all were processed'}; see {workdir / JOURNAL}, or change balance.search_share"
        )
    write_rows(_conversations(settings, chosen, journal), workdir / ROWS)
    sheet = {
        "set": datasheet.describe(stream_rows(workdir / ROWS)),
        "stages": stages,
        "spent": dict(budget.spent),
        "stopped": stopped or "all seeds were processed",
        "settings": identity,
        "balance": plain(settings.balance),
    }
    datasheet.write(workdir, sheet)
    return sheet


def _digest(tokenizer: Any) -> str:
    """A hash that is equal for equal tokenizers, independent of their directories."""
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    return hashlib.sha256(backend.to_str().encode()).hexdigest()[:16]


async def _generate(
    settings: DatagenSettings, renderer: ChatRenderer, journal: Journal, budget: DatagenBudget, show_progress: bool
) -> str | None:
    tools = tool_client(settings.tools)
    chat = ChatClient(settings.teacher, "teacher", "turn")
    target = None
    if settings.labels.target.url:
        target = ChatClient(settings.labels.target, "target policy", "answer")
    judge = Judge(settings.judge) if settings.judge.url else None
    labelling = Labelling(settings.labels.categories, target, settings.labels.samples, settings.labels.required_below)
    teacher = Teacher(chat, tools, settings.episode, renderer, budget)
    generator = Generator(teacher, chat, labelling, budget, judge, settings.max_failures)
    kept = sum(entry.outcome == SeedOutcome.KEPT for entry in journal.entries.values())
    try:
        await tools.wait_ready(_READY_S)
        with tqdm.tqdm(desc="datagen", unit="seed", disable=not show_progress) as bar:

            def ended(entry: JournalEntry) -> None:
                nonlocal kept
                kept += entry.outcome == SeedOutcome.KEPT
                bar.update()
                bar.set_postfix(kept=kept, refresh=False)

            return await generator.run(_seeds(settings), journal, settings.concurrency, ended)
    finally:
        for client in (tools, chat, target, judge):
            if client is not None:
                await client.close()


def _seeds(settings: DatagenSettings) -> Iterator[Row]:
    """The questions to process: a share of the file, the same in every run; of rows with the same id, the first."""
    seen: set[str] = set()
    for row in stream_rows(settings.seeds.path):
        if row.id in seen:
            continue
        seen.add(row.id)
        digest = hashlib.sha256(f"{settings.seed}/{row.id}".encode()).digest()
        if int.from_bytes(digest[:8], "big") < settings.seeds.share * 2**64:
            yield row


def _chosen(settings: DatagenSettings, entries: list[JournalEntry]) -> set[str]:
    candidates = [
        BalanceCandidate(entry.id, entry.category, bool(entry.search_required))
        for entry in entries
        if entry.outcome == SeedOutcome.KEPT
    ]
    # Entries end in random order, which must not change the choice.
    candidates.sort()
    balance = settings.balance
    return {candidate.id for candidate in choose(candidates, balance.size, balance.search_share, settings.seed)}


def _conversations(settings: DatagenSettings, chosen: set[str], journal: Journal) -> Iterator[Row]:
    for row in _seeds(settings):
        if row.id in chosen:
            entry = journal.entries[row.id]
            provenance = row.provenance | {
                "made_by": "datagen",
                "teacher": settings.teacher.model,
                "search_required_by": entry.measured_by,
            }
            # With its images, so that the file can be read from anywhere; an address may be dead by now.
            yield dataclasses.replace(
                embed_images(row, urls=False),
                turns=entry.turns,
                category=entry.category,
                search_required=entry.search_required,
                provenance=provenance,
            )
