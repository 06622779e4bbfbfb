"""The engines of one process, as one: every group of chips of the host samples, each in its own time.

An engine never waits for another one: `rollout.rounds` gives each its next work when its last has ended. What a sequence
samples does not depend on the engine (see `sampling.position_keys`).
"""

from __future__ import annotations

import dataclasses
import functools
import operator
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from flax import nnx

from mmsearch_jax.data.chat import ChatRenderer
from mmsearch_jax.images.processing import ImageProcessor
from mmsearch_jax.rollout.engine import Engine, set_weights
from mmsearch_jax.rollout.engine_spec import EngineSpec
from mmsearch_jax.rollout.episode import Generation
from mmsearch_jax.rollout.placement import host_meshes, place_on_each
from mmsearch_jax.rollout.sequence import EngineStats, LiveSequence, PreparedImage
from mmsearch_jax.settings.rollout import EngineConfig


class EngineGroup:
    """`config.groups` engines with equal weights, each on `config.tensor` chips of this host.

    A sequence stays on its engine while it holds a slot. Sequences with equal prompts get slots of one engine if it has free
    ones, so that the prompt is fed once.

    Args:
      model, tokenizer, image_processor, config, seed: see `EngineSpec.of`.

    Attributes:
      engines: one for each group of chips.
      config: the sizes of all engines together.

    Raises:
      CheckpointError: model and tokenizer belong to different checkpoints.
      ConfigError: the host has fewer chips.
    """

    def __init__(
        self, model: Any, tokenizer: Any, image_processor: ImageProcessor, config: EngineConfig, seed: int = 0
    ):
        meshes = host_meshes(config)
        spec = EngineSpec.of(model, tokenizer, image_processor, config, seed)
        weights = place_on_each(nnx.state(model), [spec.shapes] * len(meshes), meshes)
        self.engines: Sequence[Engine] = [Engine(spec, mesh, own) for mesh, own in zip(meshes, weights, strict=True)]
        count = len(self.engines)
        self.config = dataclasses.replace(
            config, num_slots=count * config.num_slots, decode_width=count * config.decode_width
        )
        self._first, self._images = self.engines[0], spec.images

    @property
    def renderer(self) -> ChatRenderer:
        """Text to tokens and back."""
        return self._first.renderer

    @property
    def policy_version(self) -> int:
        """Version of the weights, as given to `set_weights`."""
        return self._first.policy_version

    @property
    def stats(self) -> EngineStats:
        """The work of all engines together."""
        return functools.reduce(operator.add, (engine.stats for engine in self.engines), EngineStats())

    @property
    def free_slots(self) -> int:
        """Slots that no sequence holds."""
        return sum(engine.free_slots for engine in self.engines)

    def set_weights(self, state: Any, version: int, *, keep_image_features: bool = False) -> None:
        """Copies new weights into all engines; see `Engine.set_weights`."""
        set_weights(self.engines, state, version, keep_image_features=keep_image_features)

    def prepare_image(self, encoded: bytes) -> PreparedImage:
        """See `Engine.prepare_image`."""
        return self._images.prepare(encoded)

    def acquire(self, sequence: LiveSequence) -> None:
        """Gives the sequence a free slot: where its prompt is, else where most are free."""
        prompt = hash(sequence.prompt_key)
        free = [engine for engine in self.engines if engine.free_slots]
        max(free, key=lambda engine: (engine.holds(prompt), engine.free_slots)).acquire(sequence)

    def release(self, sequence: LiveSequence) -> None:
        """See `Engine.release`."""
        (sequence.engine or self._first).release(sequence)

    def begin_turn(self, sequence: LiveSequence, max_tokens: int) -> None:
        """See `Engine.begin_turn`."""
        self._first.begin_turn(sequence, max_tokens)

    def take(self, sequence: LiveSequence) -> Generation:
        """See `Engine.take`."""
        return self._first.take(sequence)

    def warm_up(self, progress: Callable[[], object] = lambda: None) -> int:
        """`Engine.warm_up` of all engines; returns the number of programs."""
        lock = threading.Lock()

        def told() -> None:
            with lock:
                progress()

        # The first one alone: where compiled programs are cached, the others load them.
        first, *others = self.engines
        count = first.warm_up(told)
        if others:
            with ThreadPoolExecutor(len(others)) as threads:
                count += sum(threads.map(lambda engine: engine.warm_up(told), others))
        return count

    def num_programs(self) -> int:
        """Number of programs compiled so far."""
        return sum(engine.num_programs() for engine in self.engines)


Sampler = Engine | EngineGroup
"""What the scheduler drives."""
