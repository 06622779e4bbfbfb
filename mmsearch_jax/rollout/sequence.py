"""The host's records of the engine: its sizes, a prepared image, and a sequence that occupies a slot."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Int32

from mmsearch_jax.images.processing import ProcessedImage
from mmsearch_jax.rollout.episode import Finish
from mmsearch_jax.rollout.programs import NO_SLOT, Decoded
from mmsearch_jax.rollout.sampling import SamplingParams


@dataclasses.dataclass
class PreparedImage:
    """An image in the engine's form; equal bytes give the same object while it is cached.

    `features` (float [num_tokens, D], on the host) are set once encoded under the current weights.
    """

    key: str
    processed: ProcessedImage
    grid: tuple[int, int, int]
    num_tokens: int
    features: Float32[np.ndarray, "tokens D"] | None = None


@dataclasses.dataclass(eq=False)
class LiveSequence:
    """One trajectory as the engine sees it. `token_ids` is the trajectory's own list, which the engine only reads.

    `fed` counts the tokens that are in the cache of `slot`, a slot of `engine`. The fields `new_*` hold the turn in progress,
    which `Engine.take` returns.

    Attributes:
      num_top: how many of the most probable tokens to record at each sampled token, at most `EngineConfig.top_logprobs`.
      new_tops: for each of `new_ids` those tokens with their log-probs, best first.
    """

    token_ids: list[int]
    images: list[PreparedImage]
    seed: int = 0
    sampling: SamplingParams = SamplingParams()
    plain: bool = False
    num_top: int = 0
    engine: Any = None
    slot: int | None = None
    fed: int = 0
    budget: int = 0
    state: int = 0
    finish: Finish | None = None
    new_ids: list[int] = dataclasses.field(default_factory=list)
    new_logprobs: list[float] = dataclasses.field(default_factory=list)
    new_tops: list[list[tuple[int, float]]] = dataclasses.field(default_factory=list)
    positions: Int32[np.ndarray, "3 L"] = dataclasses.field(default_factory=lambda: np.zeros((3, 0), np.int32))
    next_position: int = 0

    def append(self, decoded: Decoded, row: int, count: int) -> None:
        """Takes the first `count` tokens of a decoded row."""
        self.new_ids += decoded.tokens[row, :count].tolist()
        self.new_logprobs += decoded.logprobs[row, :count].tolist()
        if self.num_top:
            tokens, logprobs = (
                each[row, :count, : self.num_top].tolist() for each in (decoded.top_tokens, decoded.top_logprobs)
            )
            self.new_tops += [list(zip(*best, strict=True)) for best in zip(tokens, logprobs, strict=True)]

    @property
    def prompt_key(self) -> tuple[object, ...]:
        """Equal for sequences with equal tokens and images."""
        return tuple(self.token_ids), *(image.key for image in self.images)

    @property
    def held_slot(self) -> int:
        """The slot of a sequence that must hold one."""
        assert self.slot is not None, "the sequence holds no slot"
        return self.slot

    @property
    def unfed(self) -> int:
        """Tokens of the trajectory that are not in the cache yet."""
        return len(self.token_ids) - self.fed

    @property
    def decodable(self) -> bool:
        """Whether a turn is in progress and the whole sequence is in the cache."""
        return self.slot is not None and self.finish is None and self.budget > 0 and self.unfed <= 0


@dataclasses.dataclass
class EngineStats:
    """Counters of the engine's work (tokens are per row and without padding)."""

    sampled_tokens: int = 0
    extended_tokens: int = 0
    shared_tokens: int = 0
    encoded_images: int = 0
    decode_calls: int = 0
    extend_calls: int = 0

    def __add__(self, other: EngineStats) -> EngineStats:
        names = [field.name for field in dataclasses.fields(self)]
        return EngineStats(*(getattr(self, name) + getattr(other, name) for name in names))


class ExtendBatch(NamedTuple):
    """The host arrays of an extend call (see `programs.extend_rows`); without images the last two are None."""

    slots: Int32[np.ndarray, "N"]
    starts: Int32[np.ndarray, "N"]
    token_ids: Int32[np.ndarray, "N T"]
    positions: Int32[np.ndarray, "3 N T"]
    num_new: Int32[np.ndarray, "N"]
    features: Float32[np.ndarray, "F D"] | None
    feature_index: Int32[np.ndarray, "N T"] | None


def extend_batch(
    sequences: Sequence[LiveSequence], num_rows: int, width: int, image_pad: int, feature_width: int
) -> ExtendBatch:
    """The next up to `width` tokens of each sequence, with the features of their images; the other rows are padding."""
    slots = np.full(num_rows, NO_SLOT, np.int32)
    starts, num_new = np.zeros(num_rows, np.int32), np.zeros(num_rows, np.int32)
    token_ids = np.zeros((num_rows, width), np.int32)
    positions = np.zeros((3, num_rows, width), np.int32)
    features: np.ndarray | None = None
    feature_index: np.ndarray | None = None
    for row, sequence in enumerate(sequences):
        count = min(sequence.unfed, width)
        chunk = np.asarray(sequence.token_ids[sequence.fed : sequence.fed + count], np.int32)
        slots[row], starts[row], num_new[row] = sequence.held_slot, sequence.fed, count
        token_ids[row, :count] = chunk
        positions[:, row, :count] = sequence.positions[:, sequence.fed : sequence.fed + count]
        pads = np.flatnonzero(chunk == image_pad)
        if pads.size:
            if features is None or feature_index is None:
                features = np.zeros((num_rows * width, feature_width), np.float32)
                feature_index = np.full((num_rows, width), -1, np.int32)
            before = sequence.token_ids[: sequence.fed].count(image_pad)
            own = np.concatenate([image.features for image in sequence.images if image.features is not None])
            features[row * width + pads] = own[before : before + pads.size]
            feature_index[row, pads] = row * width + pads
    return ExtendBatch(slots, starts, token_ids, positions, num_new, features, feature_index)


def bucket(size: int, buckets: Iterable[int]) -> int:
    """The smallest bucket that holds `size`."""
    fitting = [each for each in buckets if each >= size]
    assert fitting, f"{size} is beyond the largest bucket of {sorted(buckets)}"
    return min(fitting)
