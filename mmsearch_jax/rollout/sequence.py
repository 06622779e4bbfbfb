"""The host's records of the engine: its sizes, a prepared image, and a sequence that occupies a slot."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np
from jaxtyping import Float32, Int32

from mmsearch_jax.images.processing import ProcessedImage
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

    `fed` counts the tokens that are in the cache of `slot`. The fields `new_*` hold the turn in progress, which
    `Engine.take` returns.
    """

    token_ids: list[int]
    images: list[PreparedImage]
    seed: int = 0
    sampling: SamplingParams = SamplingParams()
    plain: bool = False
    slot: int | None = None
    fed: int = 0
    budget: int = 0
    state: int = 0
    finish: str | None = None
    new_ids: list[int] = dataclasses.field(default_factory=list)
    new_logprobs: list[float] = dataclasses.field(default_factory=list)
    positions: Int32[np.ndarray, "3 L"] = dataclasses.field(default_factory=lambda: np.zeros((3, 0), np.int32))
    next_position: int = 0

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


def bucket(size: int, buckets: Iterable[int]) -> int:
    """The smallest bucket that holds `size`."""
    fitting = [each for each in buckets if each >= size]
    assert fitting, f"{size} is beyond the largest bucket of {sorted(buckets)}"
    return min(fitting)
