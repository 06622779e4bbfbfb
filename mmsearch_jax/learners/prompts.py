"""The prompts of GRPO: reading them, setting unusable ones aside, and this process's share of their order.

The order covers all rows that could be read. A row that is set aside is passed over when its turn comes, so that the order, and
with it a resumed run, does not depend on when the row was found unusable.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np

from mmsearch_jax.core.errors import DataError, ImageError
from mmsearch_jax.data.rows import Row
from mmsearch_jax.data.set_aside import SetAside, Unused
from mmsearch_jax.data.storage import scan_rows
from mmsearch_jax.data.usable import Use, check_ids, shown_image, why_all_unusable


@dataclasses.dataclass(frozen=True)
class PromptFile:
    """The rows of a file, their numbers in it by id, and the rows that could not be read."""

    path: Path
    rows: list[Row]
    numbers: dict[str, int]
    unread: list[Unused]


def read_prompts(path: str | Path) -> PromptFile:
    """Reads a file of prompts. A row that is malformed is left out; its reason is kept.

    Raises:
      DataError: the file is missing or cannot be read, no row can be read, or two rows have the same id.
    """
    rows: list[Row] = []
    numbers: dict[str, int] = {}
    unread: list[Unused] = []
    for number, row in scan_rows(path):
        if isinstance(row, DataError):
            unread.append(Unused(number, "", str(row)))
            continue
        rows.append(row)
        numbers.setdefault(row.id, number)
    check_ids(rows, str(path))
    if not rows:
        why = f"; row {unread[0].row}: {unread[0].reason}" if unread else ": it is empty"
        raise DataError(f"{path} has no prompts that can be read{why}")
    return PromptFile(Path(path), rows, numbers, unread)


def judge_prompts(prompts: PromptFile, use: Use, workdir: Path, limit: float) -> SetAside:
    """Sets aside the rows that no episode can play, by their headers and tokens; those of an earlier start are decoded again.

    Raises:
      DataError: their share is above `limit`; names the first ones with their reasons.
    """
    total = len(prompts.rows) + len(prompts.unread)
    process = jax.process_index()
    aside = SetAside(
        workdir, "grpo", str(prompts.path), total, limit, "grpo.max_unusable", prompts.numbers, process=process
    )
    reasons = why_all_unusable(prompts.rows, use, decode=lambda row: row.id in aside.earlier)
    found = [
        Unused(prompts.numbers[row.id], row.id, why)
        for row, why in zip(prompts.rows, reasons, strict=True)
        if why is not None
    ]
    aside.start(sorted([*prompts.unread, *found]), write=process == 0)
    return aside


class Prompts:
    """This process's share of the prompts: every P-th of an order that the seed defines; each row occurs once an epoch.

    Args:
      rows: all prompts.
      aside: the rows that are passed over, to which `take` adds those that it finds; None: all rows are usable.

    Raises:
      DataError: there are no rows, or two have the same id.
    """

    def __init__(self, rows: Sequence[Row], seed: int, aside: SetAside | None = None):
        if not rows:
            raise DataError("there are no prompts to train on: the set is empty, or a filter removed all rows")
        check_ids(rows, "the prompts")
        self._rows, self._seed, self.aside = rows, seed, aside
        self._process, self._processes = jax.process_index(), jax.process_count()

    def take(
        self, taken: int, count: int, prepare: Callable[[bytes], object] = len
    ) -> tuple[list[tuple[int, Row, bytes]], int]:
        """The next usable prompts of this process after the first `taken` ones.

        Args:
          prepare: called with the encoded image of each prompt that has one; raises `ImageError` if it cannot be shown.

        Returns:
          Each prompt's index in the common order, row and encoded image (b"": none); and how many prompts are then taken.

        Raises:
          DataError: too many rows turned out to be unusable (see `SetAside`), or an image cannot be shown and `aside` is None.
        """
        chosen: list[tuple[int, Row, bytes]] = []
        while len(chosen) < count:
            place = self._process + taken * self._processes
            row = prompt_at(self._rows, place, self._seed)
            taken += 1
            if self.aside is not None and row.id in self.aside:
                continue
            try:
                encoded = shown_image(row)
                if encoded:
                    prepare(encoded)
            except ImageError as error:
                if self.aside is None:
                    raise
                self.aside.add(row.id, f"image: {error}")
                continue
            chosen.append((place, row, encoded))
        return chosen, taken


def prompt_at(rows: Sequence[Row], place: int, seed: int) -> Row:
    """The row at an index of the infinite order, which is a new permutation of the rows in each epoch."""
    epoch, within = divmod(place, len(rows))
    return rows[int(np.random.default_rng([seed, epoch]).permutation(len(rows))[within])]
