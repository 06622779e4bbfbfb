"""Packs token sequences and their images into batches of fixed shape.

Several sequences share a row, separated by segment ids; their images share rows of one patch buffer. Host-side NumPy. The
sequences include their M-RoPE positions; nothing else here depends on the model. Legend: B rows, L tokens in a row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mmsearch_jax.core.errors import ConfigError, DataError
from mmsearch_jax.images.processing import ProcessedImage
from mmsearch_jax.images.vision_inputs import PatchRows, VisionInputs, image_runs, pack_images
from mmsearch_jax.images.vision_layout import QWEN2_5_VL, VisionLayout
from mmsearch_jax.settings.learning import BatchShape


@dataclasses.dataclass(frozen=True)
class TrainingSequence:
    """One training sequence.

    Attributes:
      token_ids: int32 [L].
      positions: int32 [3, L], M-RoPE.
      loss_weights: float32 [L], the weight of each token in the loss; 0: not trained. They are 1 and 0 if they come from the
        `loss_mask` of a trajectory or conversation; pretraining lessons have fractions.
      images: in the order of their placeholders.
      image_token_id: the placeholder's id; -1 if the vocabulary has none.
      extras: additional float32 [L] arrays by name (rollout_logprobs, advantages, ...).
      layout: of the vision tower that will see the images; the same for all sequences of a batch.
    """

    token_ids: np.ndarray
    positions: np.ndarray
    loss_weights: np.ndarray
    images: Sequence[ProcessedImage] = ()
    image_token_id: int = -1
    extras: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    layout: VisionLayout = QWEN2_5_VL

    def __len__(self) -> int:
        return len(self.token_ids)


class TokenBatch(NamedTuple):
    """A packed batch.

    Attributes:
      token_ids, segment_ids, feature_index: int32 [B, L]; segment 0 is padding; `feature_index` is the index of the image
        feature that replaces a token's embedding, -1 for text.
      positions: int32 [3, B, L].
      loss_weights: float32 [B, L]; 0 at the first token of every segment, which is not predicted.
      vision: all images of the batch, or None if the batch shape has no room for images.
      extras: float32 [B, L] by name.
    """

    token_ids: Any
    positions: Any
    segment_ids: Any
    loss_weights: Any
    feature_index: Any
    vision: VisionInputs | None
    extras: Mapping[str, Any]

    @property
    def loss_mask(self) -> Any:
        """bool [B, L], True on tokens that are trained."""
        return self.loss_weights > 0


class RowPlace(NamedTuple):
    """Where a sequence (its index in the input) is in a batch: its row, and the index of its first token in the row."""

    sequence: int
    row: int
    start: int


class Packed(NamedTuple):
    """A batch, and the places of its sequences."""

    batch: TokenBatch
    places: list[RowPlace]


def pack(sequences: Sequence[TrainingSequence], shape: BatchShape, urgent: int = 0) -> tuple[Packed, list[int]]:
    """Packs the sequences that fit, longest first, each into the fullest row with enough room.

    An image that several sequences share (the same object, as in a group of rollouts) takes room only once.

    Args:
      urgent: number of leading sequences that are packed before all others, in their order. Without it, short sequences
        would wait forever if long ones keep coming.

    Returns:
      The packed batch, and the indices of the sequences that did not fit (never silently dropped).

    Raises:
      DataError: a sequence can never fit the shape, its arrays differ in length, or its image placeholders do not match its
        images.
    """
    for i, sequence in enumerate(sequences):
        try:
            check_sequence(sequence, shape)
        except DataError as error:
            raise DataError(f"sequence {i}: {error}") from error
    places, left = find_places(sequences, shape, urgent)
    return Packed(fill_batch(sequences, places, shape), places), left


def find_places(
    sequences: Sequence[TrainingSequence], shape: BatchShape, urgent: int = 0
) -> tuple[list[RowPlace], list[int]]:
    """Where `pack` puts the sequences, and the indices of those that do not fit; nothing is checked or copied."""
    room, patch_rows = np.full(shape.rows, shape.length), PatchRows(shape.images, shape.patches)
    taken: set[int] = set()
    places: list[RowPlace] = []
    left: list[int] = []
    for i in sorted(range(len(sequences)), key=lambda i: (0, i) if i < urgent else (1, -len(sequences[i]))):
        size = len(sequences[i])
        fitting = np.flatnonzero(room >= size)
        new = {id(image): len(image.patches) for image in sequences[i].images if id(image) not in taken}
        if not len(fitting) or patch_rows.place([*new.values()]) is None:
            left.append(i)
            continue
        row = int(fitting[np.argmin(room[fitting])])
        places.append(RowPlace(i, row, shape.length - int(room[row])))
        room[row] -= size
        taken.update(new)
    return places, sorted(left)


def check_patches(shape: BatchShape, layout: VisionLayout, where: str) -> None:
    """Checks that a row of patches holds whole tokens of this vision tower.

    Args:
      where: name of the setting, for the message.

    Raises:
      ConfigError: it does not.
    """
    per_token = layout.patches_per_token
    if shape.patches % per_token:
        raise ConfigError(
            f"{where}.patches is {shape.patches}, but {per_token} patches make a token of this checkpoint's vision tower: "
            f"set it to {-(-shape.patches // per_token) * per_token}, for example"
        )


def check_sequence(sequence: TrainingSequence, shape: BatchShape) -> None:
    """Checks that a sequence is consistent and fits an empty batch.

    Raises:
      DataError: its arrays differ in length, its image placeholders do not match its images, or it can never fit.
    """
    arrays = {"positions": sequence.positions[0], "loss_weights": sequence.loss_weights, **sequence.extras}
    for name, values in arrays.items():
        if len(values) != len(sequence):
            raise DataError(f"it has {len(sequence)} tokens, but {name} of length {len(values)}")
    _runs(sequence)
    if len(sequence) > shape.length:
        raise DataError(
            f"it has {len(sequence)} tokens, a row of the batch holds {shape.length}: raise the batch's length"
        )
    sizes = {id(image): len(image.patches) for image in sequence.images}
    if PatchRows(shape.images, shape.patches).place([*sizes.values()]) is None:
        raise DataError(
            f"its {len(sizes)} images of up to {max(sizes.values())} patches do not fit the {shape.images} rows of "
            f"{shape.patches} patches: raise the batch's images (rows) or patches"
        )


def pack_stream(stream: Iterable[TrainingSequence], shape: BatchShape, lookahead: int = 2) -> Iterator[TokenBatch]:
    """Batches from a finite or infinite stream; sequences that do not fit one batch go into the next.

    Args:
      lookahead: number of batches' worth of tokens to choose from; more packs tighter.
    """
    source = iter(stream)
    waiting: list[TrainingSequence] = []
    wanted = shape.rows * shape.length * lookahead
    while True:
        while sum(map(len, waiting)) < wanted and (sequence := next(source, None)) is not None:
            waiting.append(sequence)
        if not waiting:
            return
        packed, left = pack(waiting, shape)
        yield packed.batch
        waiting = [waiting[i] for i in left]


def empty_batch(shape: BatchShape, extras: Sequence[str] = (), layout: VisionLayout = QWEN2_5_VL) -> TokenBatch:
    """A batch that contains only padding, for a process that has no data left while others have."""
    batch = _filled([], [], shape, layout)
    return batch._replace(extras={name: np.zeros((shape.rows, shape.length), np.float32) for name in sorted(extras)})


def join_batches(batches: Sequence[TokenBatch], layout: VisionLayout = QWEN2_5_VL) -> TokenBatch:
    """One batch from the rows of several batches (of equal length), in order, with their image buffers concatenated.

    Args:
      layout: that of the batches' sequences.

    Raises:
      ValueError: only some have room for images, or their extras differ.
    """
    first = batches[0]
    if len(batches) == 1:
        # Copying the pixels would cost as much as making them.
        return first
    if any((b.vision is None) != (first.vision is None) or b.extras.keys() != first.extras.keys() for b in batches):
        raise ValueError("only batches of one shape with the same extras can be joined; these differ")
    vision, index, features = None, [], 0
    for batch in batches:
        index.append(np.where(batch.feature_index >= 0, batch.feature_index + features, -1).astype(np.int32))
        if batch.vision is not None:
            features += batch.vision.patches.shape[0] * batch.vision.patches.shape[1] // layout.patches_per_token
    if first.vision is not None:
        vision = VisionInputs(*(np.concatenate(parts) for parts in zip(*(b.vision for b in batches), strict=True)))

    def rows(name: str, axis: int = 0) -> np.ndarray:
        return np.concatenate([getattr(batch, name) for batch in batches], axis)

    extras = {name: np.concatenate([batch.extras[name] for batch in batches]) for name in first.extras}
    return TokenBatch(
        rows("token_ids"),
        rows("positions", 1),
        rows("segment_ids"),
        rows("loss_weights"),
        np.concatenate(index),
        vision,
        extras,
    )


def fill_batch(sequences: Sequence[TrainingSequence], places: Sequence[RowPlace], shape: BatchShape) -> TokenBatch:
    """The batch with the sequences at their places."""
    return _filled(sequences, places, shape, sequences[0].layout if sequences else QWEN2_5_VL)


def _filled(
    sequences: Sequence[TrainingSequence], places: Sequence[RowPlace], shape: BatchShape, layout: VisionLayout
) -> TokenBatch:
    def empty(dtype: Any, value: float = 0) -> np.ndarray:
        return np.full((shape.rows, shape.length), value, dtype)

    token_ids, segments, index = empty(np.int32), empty(np.int32), empty(np.int32, -1)
    positions, loss_weights = np.zeros((3, shape.rows, shape.length), np.int32), empty(np.float32)
    names = {name for i, _, _ in places for name in sequences[i].extras}
    extras = {name: empty(np.float32) for name in sorted(names)}
    images = {id(image): image for i, _, _ in places for image in sequences[i].images}
    vision, numbers = (
        pack_images([*images.values()], shape.patches, shape.images, layout=layout)
        if images
        else (_no_images(shape, layout), [])
    )
    features = dict(zip(images, numbers, strict=True))
    next_segment = np.ones(shape.rows, np.int32)
    for i, row, start in places:
        sequence = sequences[i]
        span = slice(start, start + len(sequence))
        token_ids[row, span] = sequence.token_ids
        positions[:, row, span] = sequence.positions
        segments[row, span] = next_segment[row]
        next_segment[row] += 1
        loss_weights[row, span] = sequence.loss_weights
        loss_weights[row, start] = 0
        for name, values in sequence.extras.items():
            extras[name][row, span] = values
        for image, run in zip(sequence.images, _runs(sequence), strict=True):
            own = features[id(image)]
            index[row, start + run : start + run + len(own)] = own
    return TokenBatch(token_ids, positions, segments, loss_weights, index, vision, extras)


def _runs(sequence: TrainingSequence) -> list[int]:
    sizes = [len(image.patches) // sequence.layout.patches_per_token for image in sequence.images]
    return image_runs(sequence.token_ids, sequence.image_token_id, sizes)


def _no_images(shape: BatchShape, layout: VisionLayout) -> VisionInputs | None:
    """A buffer of the shape's size without images, so that batches with and without images share one compiled program."""
    if not shape.images:
        return None
    side = layout.merge_size
    blank = ProcessedImage(np.zeros((side * side, layout.patch_bytes), np.uint8), (1, side, side))
    vision, _ = pack_images([blank], shape.patches, shape.images, layout=layout)
    return vision._replace(
        window_segment_ids=np.zeros_like(vision.window_segment_ids),
        image_segment_ids=np.zeros_like(vision.image_segment_ids),
    )
