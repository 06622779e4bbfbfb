"""From seeds to journal entries, several at a time: the teacher's conversation, the answer's match, the labels."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Iterator, Sequence

from mmsearch_jax.core.chat_client import ChatClient
from mmsearch_jax.core.errors import ChatFailed, ImageError, JudgeFailed, ToolError
from mmsearch_jax.data.rows import Row, read_image
from mmsearch_jax.datagen import labels
from mmsearch_jax.datagen.budget import BudgetSpent, DatagenBudget
from mmsearch_jax.datagen.conversation import Teacher
from mmsearch_jax.datagen.journal import Journal, JournalEntry
from mmsearch_jax.images.processing import load_image
from mmsearch_jax.rewards.judge import Judge
from mmsearch_jax.rewards.match import matches

_BROKEN = ("teacher_failed", "tool_failed", "target_failed", "judge_failed")


@dataclasses.dataclass(frozen=True)
class Labelling:
    """How finished conversations are labelled.

    Attributes:
      categories: the taxonomy.
      target: the policy that is to be trained; None where there is none to ask.
      samples: direct answers of the target for each question.
      required_below: a search is required where fewer than this share of them are right.
    """

    categories: tuple[str, ...]
    target: ChatClient | None = None
    samples: int = 4
    required_below: float = 0.5


class Generator:
    """Works through seeds.

    Args:
      teacher, chat: the teacher, and its endpoint, which labels too.
      judge: asked where the rules of `rewards.match` say no; None for the rules alone.
      max_failures: the run ends after this many failed seeds in a row.
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
        """Works through the seeds that are not done; returns which budget ended the run, if one did.

        Raises:
          ToolError: too many seeds in a row failed.
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
                self._failures = self._failures + 1 if entry.outcome in _BROKEN else 0
                if self._failures >= self._max_failures:
                    raise ToolError(f"{self._failures} seeds in a row failed; the last: {entry.why}")

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(concurrency):
                    group.create_task(worker())
        except ExceptionGroup as errors:
            # One reason is enough, and the user sees one line in place of a group's traceback.
            raise errors.exceptions[0] from None
        return stopped

    async def _entry(self, row: Row) -> JournalEntry:
        try:
            image = read_image(row.image) if row.image else None
            if image:
                load_image(image)
        except ImageError as error:
            return JournalEntry(row.id, "unreadable_image", str(error))
        worked = await self._teacher.work(row.question, image)
        if worked.outcome != "answered" or worked.answer is None:
            return JournalEntry(row.id, worked.outcome, worked.why)
        try:
            if not await self._correct(row, worked.answer):
                return JournalEntry(row.id, "wrong_answer", worked.answer[:200])
        except JudgeFailed as error:
            return JournalEntry(row.id, "judge_failed", str(error))
        names, searched = self._labelling.categories, len(worked.turns) > 1
        try:
            category = await labels.category(self._chat, self._budget, row.question, row.answers[0], names)
        except ChatFailed as error:
            return JournalEntry(row.id, "unlabelled", str(error))
        try:
            required, by = await self._search_required(row, image, searched=searched)
        except ChatFailed as error:
            return JournalEntry(row.id, "target_failed", str(error))
        if required != searched:
            # Training on it would teach to guess where a search is needed, or to search where none is.
            return JournalEntry(row.id, "search_mismatch", f"search required: {required}, searched: {searched}")
        return JournalEntry(row.id, "kept", "", worked.turns, category, required, by)

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


def outcomes(entries: Sequence[JournalEntry]) -> dict[str, int]:
    """The number of seeds by outcome, in the order of the stages."""
    found = {entry.outcome for entry in entries}
    return {name: sum(entry.outcome == name for entry in entries) for name in _STAGES if name in found}


_STAGES = (
    "unreadable_image",
    "teacher_failed",
    "refused",
    "invalid_turn",
    "over_limit",
    "tool_failed",
    "too_many_turns",
    "overlong",
    "gave_up",
    "wrong_answer",
    "judge_failed",
    "unlabelled",
    "target_failed",
    "search_mismatch",
    "kept",
)
