"""Turns seeds into journal entries, several in parallel: the teacher's conversation, the answer's match, the labels."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
from collections.abc import Callable, Iterator, Sequence

from mmsearch_jax.core.chat_client import ChatClient
from mmsearch_jax.core.errors import ChatFailed, ImageError, JudgeFailed, ToolError
from mmsearch_jax.data.rows import Row, read_image
from mmsearch_jax.datagen import labels
from mmsearch_jax.datagen.budget import BudgetSpent, DatagenBudget
from mmsearch_jax.datagen.conversation import Teacher
from mmsearch_jax.datagen.journal import Journal, JournalEntry
from mmsearch_jax.datagen.outcome import BROKEN, SeedOutcome
from mmsearch_jax.images.processing import load_image
from mmsearch_jax.rewards.judge import Judge
from mmsearch_jax.rewards.match import matches


@dataclasses.dataclass(frozen=True)
class Labelling:
    """The settings for labelling finished conversations.

    Attributes:
      categories: the taxonomy.
      target: the policy that will be trained; None: it is not asked.
      samples: number of the target's direct answers per question.
      required_below: a search is required if the share of right direct answers is below this value.
    """

    categories: tuple[str, ...]
    target: ChatClient | None = None
    samples: int = 4
    required_below: float = 0.5


class Generator:
    """Generates conversations from seeds.

    Args:
      teacher, chat: the teacher, and its endpoint, which also labels.
      judge: asked if the rules of `rewards.match` do not match; None: use only the rules.
      max_failures: the run ends after this number of consecutive failed seeds.
    """

    def __init__(
        self,
        teacher: Teacher,
        chat: ChatClient,
        labelling: Labelling,
        budget: DatagenBudget,
        judge: Judge | None = None,
        max_failures: int = 50,
    ):
        self._teacher, self._chat, self._labelling, self._budget = teacher, chat, labelling, budget
        self._judge, self._max_failures, self._failures = judge, max_failures, 0

    async def run(
        self, seeds: Iterator[Row], journal: Journal, concurrency: int, progress: Callable[[JournalEntry], None]
    ) -> str | None:
        """Processes the unfinished seeds; returns the budget that ended the run, or None.

        Raises:
          ToolError: too many consecutive seeds failed.
        """
        stopped: str | None = None

        async def worker() -> None:
            nonlocal stopped
            for row in seeds:
                if journal.done(row.id):
                    continue
                stopped = stopped or self._budget.exhausted()
                if stopped:
                    return
                try:
                    entry = await self._entry(row)
                except BudgetSpent as error:
                    stopped = str(error)
                    return
                journal.write(entry, dict(self._budget.spent))
                progress(entry)
                self._failures = self._failures + 1 if entry.outcome in BROKEN else 0
                if self._failures >= self._max_failures:
                    raise ToolError(f"{self._failures} consecutive seeds failed; the last: {entry.why}")

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(concurrency):
                    group.create_task(worker())
        except ExceptionGroup as errors:
            # The user sees the first reason in one line instead of an exception group's traceback.
            raise errors.exceptions[0] from None
        return stopped

    async def _entry(self, row: Row) -> JournalEntry:
        try:
            image = read_image(row.image) if row.image else None
            if image:
                load_image(image)
        except ImageError as error:
            return JournalEntry(row.id, SeedOutcome.UNREADABLE_IMAGE, str(error))
        worked = await self._teacher.work(row.question, image)
        if worked.dropped is not None:
            return JournalEntry(row.id, worked.dropped, worked.why)
        assert worked.answer is not None
        try:
            if not await self._correct(row, worked.answer):
                return JournalEntry(row.id, SeedOutcome.WRONG_ANSWER, worked.answer[:200])
        except JudgeFailed as error:
            return JournalEntry(row.id, SeedOutcome.JUDGE_FAILED, str(error))
        names, searched = self._labelling.categories, len(worked.turns) > 1
        try:
            category = await labels.category(self._chat, self._budget, row.question, row.answers[0], names)
        except ChatFailed as error:
            return JournalEntry(row.id, SeedOutcome.UNLABELLED, str(error))
        try:
            required, by = await self._search_required(row, image, searched=searched)
        except ChatFailed as error:
            return JournalEntry(row.id, SeedOutcome.TARGET_FAILED, str(error))
        if required != searched:
            # Training on it would teach guessing when a search is needed, or needless searches.
            return JournalEntry(
                row.id, SeedOutcome.SEARCH_MISMATCH, f"search required: {required}, searched: {searched}"
            )
        return JournalEntry(row.id, SeedOutcome.KEPT, "", worked.turns, category, required, by)

    async def _correct(self, row: Row, answer: str) -> bool:
        if matches(answer, row.answers) or self._judge is None:
            return matches(answer, row.answers)
        return await self._judge.correct(row.question, row.answers, answer)

    async def _search_required(self, row: Row, image: bytes | None, searched: bool) -> tuple[bool, str]:
        target = self._labelling.target
        if target is not None:
            share = await labels.direct_accuracy(
                target, self._budget, row.question, row.answers, image, self._labelling.samples
            )
            return share < self._labelling.required_below, "target"
        return (searched, "teacher") if row.search_required is None else (row.search_required, "seed")


def outcomes(entries: Sequence[JournalEntry]) -> dict[SeedOutcome, int]:
    """The number of seeds by outcome, in the order of the stages."""
    counts = collections.Counter(entry.outcome for entry in entries)
    return {outcome: counts[outcome] for outcome in SeedOutcome if outcome in counts}
