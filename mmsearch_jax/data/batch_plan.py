"""Cuts the sequences of a training step into mini-batches, and these into batches of a few fixed shapes, as full as possible.

The plan depends only on the sequences and their order, so that processes that hold the same sequences plan alike, and a run
does not depend on the number of its processes. Host-side NumPy; it does not depend on the loss.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from mmsearch_jax.data.batches import RowPlace, TokenBatch, TrainingSequence, fill_batch, find_places
from mmsearch_jax.settings.learning import BatchShape


class PlannedBatch(NamedTuple):
    """A batch that is not filled yet: its shape, and the places of sequences in it."""

    shape: BatchShape
    places: list[RowPlace]


class Fill(NamedTuple):
    """Real tokens and patches of some batches, and the room that the batches have for them."""

    tokens: int
    room: int
    patches: int
    patch_room: int

    def shares(self) -> dict[str, float]:
        """Metrics: `fill` (of tokens) and `patch_fill`; absent where there is no room."""
        parts = {"fill": (self.tokens, self.room), "patch_fill": (self.patches, self.patch_room)}
        return {name: real / room for name, (real, room) in parts.items() if room}


def halved_shapes(shape: BatchShape, halvings: int, row_parts: int = 1, token_parts: int = 1) -> list[BatchShape]:
    """The shape and those with half, a quarter, ... of its length and images, as far as they divide; the smallest is first.

    Args:
      halvings: number of smaller shapes.
      row_parts, token_parts: number of parts into which the mesh splits the rows, and the tokens of a row.
    """
    shapes = [shape]
    for _ in range(halvings):
        last = shapes[0]
        if last.length % (2 * token_parts):
            break
        images = last.images if last.images % (2 * row_parts) else last.images // 2
        shapes.insert(0, dataclasses.replace(last, length=last.length // 2, images=images))
    return shapes


def cut_evenly(lengths: Sequence[int], parts: int) -> list[range]:
    """Consecutive ranges of sequences with nearly equal numbers of tokens; a range may be empty.

    A sequence belongs to the part in which its middle token falls.
    """
    ends = np.cumsum(lengths, dtype=np.int64)
    if not len(ends):
        return [range(0)] * parts
    # In half tokens, so that the numbers are whole.
    numbers = (2 * ends - np.asarray(lengths)) * parts // (2 * ends[-1])
    bounds = np.searchsorted(numbers, np.arange(parts + 1))
    return [range(int(begin), int(end)) for begin, end in itertools.pairwise(bounds)]


def plan_batches(sequences: Sequence[TrainingSequence], shapes: Sequence[BatchShape]) -> list[PlannedBatch]:
    """Full batches of the largest shape, and what is left over in a batch of the smallest shape that holds it.

    Args:
      sequences: each fits an empty batch of the largest shape (see `batches.check_sequence`).
      shapes: from the smallest to the largest.
    """
    planned: list[PlannedBatch] = []
    waiting = list(range(len(sequences)))
    while waiting:
        for shape in shapes:
            places, left = _places_of(sequences, waiting, shape)
            if not left:
                break
        planned.append(PlannedBatch(shape, places))
        waiting = left
    return planned


def filled(sequences: Sequence[TrainingSequence], planned: PlannedBatch) -> TokenBatch:
    """The batch's arrays."""
    return fill_batch(sequences, planned.places, planned.shape)


def fill_of(batches: Iterable[TokenBatch]) -> Fill:
    """How full the batches (host arrays) are."""
    batches = list(batches)
    images: list[Any] = [batch.vision.image_segment_ids for batch in batches if batch.vision is not None]
    return Fill(
        sum(int(np.count_nonzero(batch.segment_ids)) for batch in batches),
        sum(batch.segment_ids.size for batch in batches),
        sum(int(np.count_nonzero(ids)) for ids in images),
        sum(ids.size for ids in images),
    )


def _places_of(
    sequences: Sequence[TrainingSequence], chosen: Sequence[int], shape: BatchShape
) -> tuple[list[RowPlace], list[int]]:
    """`find_places` for some of the sequences, by their indices in the whole list."""
    places, left = find_places([sequences[i] for i in chosen], shape)
    return [place._replace(sequence=chosen[place.sequence]) for place in places], [chosen[i] for i in left]
