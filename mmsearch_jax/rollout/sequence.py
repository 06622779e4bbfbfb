"""The host's records of the engine: its sizes, a prepared image, and a sequence that lives in a slot."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float32, Int32

from mmsearch_jax.core.errors import ConfigError
from mmsearch_jax.images.processing import ProcessedImage
from mmsearch_jax.rollout.sampling import SamplingParams


@dataclasses.dataclass(frozen=True)
class EngineConfig:
    """Sizes of the engine. Each combination of buckets that is met compiles one program, once.

    Attributes:
      num_slots: sequences that hold a cache at once (S), whether they decode or wait for a tool.
      decode_width: sequences that decode at once; 0: all that hold a slot. With more slots than that, those that wait for a
        tool keep their caches and others decode in their stead.
      max_length: tokens that a slot can hold: at least the episodes' `max_trajectory_tokens`.
      extend_rows: row counts of an extend call; the smallest that fits is taken.
      extend_buckets: new tokens of an extend call; longer inputs go in pieces of the largest.
      extend_calls: at most so many extend calls between two decode calls, so that long prompts do not hold up those that could
        decode; 0: no limit.
      decode_rows: row counts of a decode call besides S: when few slots are live, a smaller batch is decoded.
      length_buckets: cache lengths that are read, besides `max_length`: short sequences read a short cache.
      patch_buckets: patches of a row of the vision tower's input; larger images go in steps of a quarter of a power of two.
      decode_steps: tokens per row before the device returns to the host.
      image_cache: images whose patches and features are kept on the host.
      tensor: chips of this host over which weights and caches are split (tensor parallelism).
      seed: of the sampling keys, together with each trajectory's own seed.
    """

    num_slots: int = 64
    decode_width: int = 0
    max_length: int = 768
    extend_rows: Sequence[int] = (8,)
    extend_buckets: Sequence[int] = (64, 256)
    extend_calls: int = 4
    decode_rows: Sequence[int] = (16,)
    length_buckets: Sequence[int] = (384,)
    patch_buckets: Sequence[int] = ()
    decode_steps: int = 16
    image_cache: int = 512
    tensor: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.decode_width <= self.num_slots:
            raise ConfigError(
                f"engine.decode_width is {self.decode_width}, must be between 0 (all) and engine.num_slots "
                f"({self.num_slots})"
            )

    @property
    def width(self) -> int:
        """Sequences that decode at once."""
        return self.decode_width or self.num_slots


@dataclasses.dataclass
class PreparedImage:
    """An image as the engine needs it; equal bytes give the same object while it is cached.

    `features` (float [num_tokens, D], on the host) are there once encoded under the current weights.
    """

    key: str
    processed: ProcessedImage
    grid: tuple[int, int, int]
    num_tokens: int
    features: Float32[np.ndarray, "tokens D"] | None = None


@dataclasses.dataclass(eq=False)
class LiveSequence:
    """One trajectory as the engine sees it. `token_ids` is the trajectory's own list: the engine only reads
    it.

    `fed` counts the tokens that are in the cache of `slot`. The turn in progress stands in `new_*` and is
    handed over by `Engine.take`.
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
    new_sampling_logprobs: list[float] = dataclasses.field(default_factory=list)
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
        """Whether a turn is in progress and its sequence stands whole in the cache."""
        return self.slot is not None and self.finish is None and self.budget > 0 and self.unfed <= 0


@dataclasses.dataclass
class EngineStats:
    """What the engine has done so far (tokens are per row and without padding)."""

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
