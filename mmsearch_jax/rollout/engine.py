"""The rollout engine: slots with a KV cache on the device, driven by plain calls from the host.

It turns sequences of token ids into turns of token ids. It does not depend on tools, episodes or rewards: the scheduler decides
what runs. Shapes come from small sets of buckets and everything else is an array, so that each program is compiled only once.
Legend: S slots, N rows of one call, T new tokens, D width.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from mmsearch_jax.core.errors import DataError
from mmsearch_jax.images.processing import ImageProcessor
from mmsearch_jax.images.vision_inputs import VisionInputs
from mmsearch_jax.models.mrope import mrope_positions
from mmsearch_jax.rollout import jitted, programs
from mmsearch_jax.rollout.engine_spec import EngineSpec
from mmsearch_jax.rollout.episode import Generation
from mmsearch_jax.rollout.jitted import empty_slots
from mmsearch_jax.rollout.placement import host_mesh, place_on_each, place_weights
from mmsearch_jax.rollout.sequence import EngineStats, LiveSequence, PreparedImage, bucket, extend_batch
from mmsearch_jax.settings.rollout import EngineConfig


@dataclasses.dataclass
class _Prefix:
    owner: LiveSequence
    slot: int
    length: int
    hidden: jax.Array
    positions: np.ndarray
    next_position: int


class Engine:
    """Weights, slots and caches on one group of chips. Every method blocks until it is done; do not call two from different
    threads at once.

    Args:
      spec: what all engines of the process have in common.
      mesh: the chips, over which heads, MLP and vocabulary are split.
      weights: `spec.shapes` as arrays on the mesh.
      cache: an empty cache to use instead of a `KVCache` (for models of another kind).
    """

    def __init__(self, spec: EngineSpec, mesh: Mesh, weights: Any, cache: Any | None = None):
        self.config, self.renderer, self.model_config = spec.config, spec.renderer, spec.model_config
        self.policy_version = 0
        self.stats = EngineStats()
        self._mesh, self._weights = mesh, weights
        self._turns, self._images = spec.turns, spec.images

        def empty() -> tuple[Any, jax.Array]:
            own, hidden = empty_slots(spec.model_config, spec.config, spec.dtype)
            return own if cache is None else cache, hidden

        places = jitted.places(mesh, jax.eval_shape(empty)[0], spec.model_config.text.num_key_value_heads)
        # Made where they stay: a cache can take most of a chip's memory.
        self._cache, self._hidden = jax.jit(empty, out_shardings=(places.cache, places.whole))()
        self._whole = places.whole
        self._constants = self._on_device(spec.turns.constants(spec.seed))
        self._owners: list[LiveSequence | None] = [None] * spec.config.num_slots
        self._prompts: dict[int, int] = {}
        """By slot: the hash of what its sequence held when it got the slot."""
        self._leaders: dict[Any, LiveSequence] = {}
        """By prompt: the sequence that feeds it; the others of the group wait for its cache."""
        self._prefixes: dict[Any, _Prefix] = {}
        self._lengths = spec.config.lengths
        self._programs = jitted.jit_programs(spec.functions, places)

    @classmethod
    def of(
        cls,
        model: Any,
        tokenizer: Any,
        image_processor: ImageProcessor,
        config: EngineConfig,
        seed: int = 0,
        cache: Any | None = None,
    ) -> Self:
        """One engine, on the first `config.tensor` chips of this host.

        Args:
          model, tokenizer, image_processor, config, seed: see `EngineSpec.of`.
          cache: see `Engine`.

        Raises:
          CheckpointError: model and tokenizer belong to different checkpoints.
          ConfigError: the host has fewer chips.
        """
        spec, mesh = EngineSpec.of(model, tokenizer, image_processor, config, seed), host_mesh(config.tensor)
        return cls(spec, mesh, place_weights(nnx.state(model), spec.shapes, mesh), cache)

    # Weights, images and slots ------------------------------------------------------------------------------

    def set_weights(self, state: Any, version: int, *, keep_image_features: bool = False) -> None:
        """Copies new weights into the engine; no sequence may hold a slot.

        Args:
          state: an `nnx` state with some or all of the model's parameters (for example only the adapters), on any devices. If
            they are spread over several processes, all of these must call this together.
          keep_image_features: the vision tower is unchanged (frozen), so encoded images stay valid.

        Raises:
          CheckpointError: a parameter that the model does not have, or one with another shape.
        """
        set_weights([self], state, version, keep_image_features=keep_image_features)

    @property
    def engines(self) -> Sequence[Engine]:
        """Itself, like `EngineGroup.engines`."""
        return (self,)

    @property
    def free_slots(self) -> int:
        """Slots that no sequence holds."""
        return self._owners.count(None)

    def prepare_image(self, encoded: bytes) -> PreparedImage:
        """Decodes an image and cuts it into patches, once for equal bytes. May be called from any thread at any time.

        Raises:
          ImageError: not an image.
        """
        return self._images.prepare(encoded)

    def acquire(self, sequence: LiveSequence) -> None:
        """Gives the sequence a free slot; all its tokens must then be fed."""
        assert sequence.slot is None and self.free_slots
        sequence.engine, sequence.slot, sequence.fed = self, self._owners.index(None), 0
        self._owners[sequence.slot] = sequence
        self._prompts[sequence.slot] = hash(sequence.prompt_key)

    def holds(self, prompt: int) -> bool:
        """Whether a sequence with this hash of `LiveSequence.prompt_key` got a slot here: its cache can be copied."""
        return prompt in self._prompts.values()

    def release(self, sequence: LiveSequence) -> None:
        """Takes the slot back. If the sequence returns, its tokens are fed again."""
        if sequence.slot is not None:
            self._owners[sequence.slot] = None
            del self._prompts[sequence.slot]
            self._prefixes = {key: p for key, p in self._prefixes.items() if p.owner is not sequence}
            self._leaders = {key: leader for key, leader in self._leaders.items() if leader is not sequence}
        sequence.engine, sequence.slot, sequence.fed = None, None, 0

    def begin_turn(self, sequence: LiveSequence, max_tokens: int) -> None:
        """Begins a turn of at most `max_tokens`, which is sampled once all tokens are fed."""
        assert len(sequence.token_ids) + max_tokens <= self.config.max_length, "the engine's max_length is too small"
        sequence.budget, sequence.state, sequence.finish = max_tokens, 0, None
        sequence.new_ids, sequence.new_logprobs, sequence.new_tops = [], [], []

    def play(self, sequences: Sequence[LiveSequence]) -> list[LiveSequence]:
        """One round: feeds new tokens, then decodes for a while; returns the sequences whose turn has ended.

        Args:
          sequences: those that hold a slot and are not parked. Of more than `config.width`, the first ones are served: a
            sequence that has begun to decode continues until its turn ends.
        """
        served = sequences[: self.config.width]
        unfed = [sequence for sequence in served if sequence.unfed > 0]
        if unfed:
            self.extend(unfed, self.config.extend_calls)
        decodable = [sequence for sequence in served if sequence.decodable]
        return self.decode(decodable) if decodable else []

    # Extend -------------------------------------------------------------------------------------------------

    def extend(self, sequences: Sequence[LiveSequence], max_calls: int = 0) -> None:
        """Feeds the unfed tokens of the sequences, in as few calls as the buckets allow.

        Equal prompts are fed once: the other slots get a copy of the cache. An image may come with any turn: it is appended
        to the sequence's images together with its placeholder tokens.

        Args:
          max_calls: the most device calls to make; another `extend` feeds the rest. 0: feed all.

        Raises:
          DataError: the new image placeholders of a sequence do not match its new images; nothing was fed.
        """
        work, followers = self._split(sequences)
        for number, sequence in enumerate(work):
            self._assign_positions(number, sequence)
        shown = self.renderer.image_pad
        self.stats.encoded_images += self._images.encode_missing(
            (image for s in work if shown in s.token_ids[s.fed :] for image in s.images), self._encode
        )
        rows, calls = max(self.config.extend_rows), 0
        while work and (not max_calls or calls < max_calls):
            turn = sorted(work[: rows * (max_calls - calls)] if max_calls else work, key=lambda s: s.unfed)
            for start in range(0, len(turn), rows):
                self._extend_call(turn[start : start + rows])
                calls += 1
            work = [sequence for sequence in work if sequence.unfed > 0]
        for key, leader in [(key, leader) for key, leader in self._leaders.items() if leader.unfed == 0]:
            slot = leader.held_slot
            self._prefixes[key] = _Prefix(
                leader, slot, leader.fed, self._hidden_of(slot), leader.positions, leader.next_position
            )
            del self._leaders[key]
        for key, group in followers.items():
            if key in self._prefixes:
                self._share(self._prefixes[key], group)

    def _split(self, sequences: Sequence[LiveSequence]) -> tuple[list[LiveSequence], dict[Any, list[LiveSequence]]]:
        """The sequences to feed, and by prompt those that get a copy of a fed sequence's cache."""
        work: list[LiveSequence] = []
        followers: dict[Any, list[LiveSequence]] = collections.defaultdict(list)
        for sequence in sequences:
            key = sequence.prompt_key
            if sequence.fed or self._leaders.get(key) is sequence:
                work.append(sequence)
            elif key in self._prefixes or key in self._leaders:
                followers[key].append(sequence)
            else:
                self._leaders[key] = sequence
                work.append(sequence)
        return work, followers

    def _extend_call(self, sequences: Sequence[LiveSequence]) -> None:
        num_rows = bucket(len(sequences), self.config.extend_rows)
        longest = max(sequence.unfed for sequence in sequences)
        width = bucket(min(longest, max(self.config.extend_buckets)), self.config.extend_buckets)
        batch = extend_batch(sequences, num_rows, width, self.renderer.image_pad, self._hidden.shape[1])
        length = bucket(int((batch.starts + batch.num_new).max()), self._lengths)
        self._run_extend(*batch, length=length)
        for row, sequence in enumerate(sequences):
            sequence.fed += int(batch.num_new[row])
        self.stats.extend_calls += 1
        self.stats.extended_tokens += int(batch.num_new.sum())

    def _share(self, prefix: _Prefix, sequences: Sequence[LiveSequence]) -> None:
        width = max(self.config.extend_rows)
        for start in range(0, len(sequences), width):
            group = sequences[start : start + width]
            slots = np.full(width, programs.NO_SLOT, np.int32)
            slots[: len(group)] = [sequence.held_slot for sequence in group]
            self._run_copy(prefix.slot, prefix.hidden, slots, length=bucket(prefix.length, self._lengths))
            for sequence in group:
                sequence.fed = prefix.length
                sequence.positions, sequence.next_position = prefix.positions, prefix.next_position
                self.stats.shared_tokens += prefix.length

    def _assign_positions(self, number: int, sequence: LiveSequence) -> None:
        known = sequence.positions.shape[1]
        fresh = sequence.token_ids[known:]
        if not fresh:
            return
        grids, seen = [], sequence.token_ids[:known].count(self.renderer.image_pad)
        for image in sequence.images:
            if seen <= 0:
                grids.append(image.grid)
            seen -= image.num_tokens
        try:
            positions, after = mrope_positions(fresh, grids, self.model_config, start=sequence.next_position)
        except DataError as error:
            raise DataError(f"sequence {number} of the call, from its token {known} on: {error}") from error
        sequence.positions = np.concatenate([sequence.positions, positions], axis=1)
        sequence.next_position = int(after)

    # Decode -------------------------------------------------------------------------------------------------

    def decode(self, sequences: Sequence[LiveSequence]) -> list[LiveSequence]:
        """Samples up to `decode_steps` tokens for each sequence; returns those whose turn has ended."""
        config = self.config
        num_rows = bucket(len(sequences), (*config.decode_rows, config.width))
        reach = max(sequence.fed for sequence in sequences) + config.decode_steps
        length = bucket(min(reach, config.max_length), self._lengths)
        gather = self._gathers(num_rows, length)
        # In place, row i must be slot i, and rows that do not decode keep their lengths.
        places = list(range(len(sequences))) if gather else [s.held_slot for s in sequences]
        rows = programs.no_rows(num_rows)
        lengths = np.zeros(num_rows, np.int32)
        if not gather:
            lengths[:] = [owner.fed if owner else 0 for owner in self._owners]
        for place, sequence in zip(places, sequences, strict=True):
            assert sequence.decodable
            rows.slots[place], lengths[place] = sequence.held_slot, sequence.fed
            rows.positions[place] = sequence.next_position + sequence.fed - sequence.positions.shape[1]
            rows.budget[place] = sequence.budget - len(sequence.new_ids)
            rows.states[place], rows.tags[place] = sequence.state, not sequence.plain
            rows.seeds[place] = sequence.seed & 0xFFFFFFFF
            rows.temperature[place] = sequence.sampling.temperature
            rows.top_p[place], rows.top_k[place] = sequence.sampling.top_p, sequence.sampling.top_k
            rows.num_top[place] = sequence.num_top
        decoded = self._decode_call(rows, lengths, length)
        for place, sequence in zip(places, sequences, strict=True):
            count, running = int(decoded.counts[place]), bool(decoded.running[place])
            sequence.append(decoded, place, count)
            sequence.fed += count if running else count - 1
            sequence.state = int(decoded.states[place])
            if not running:
                sequence.finish = self._turns.reason(sequence)
            self.stats.sampled_tokens += count
        self.stats.decode_calls += 1
        return [sequence for sequence in sequences if sequence.finish is not None]

    def _gathers(self, num_rows: int, length: int) -> bool:
        return num_rows != self.config.num_slots or length != self.config.max_length

    def _decode_call(self, rows: programs.DecodeRows, lengths: np.ndarray, length: int) -> programs.Decoded:
        self._cache, self._hidden, decoded = self._programs.decode(
            self._weights,
            self._cache,
            self._hidden,
            *self._on_device((rows, lengths)),
            self._constants,
            length=length,
            gather=self._gathers(len(lengths), length),
        )
        return jax.device_get(decoded)

    # Device calls: every transfer is explicit ---------------------------------------------------------------

    def _on_device(self, values: Any) -> Any:
        """Host arrays, whole on each chip of the mesh."""
        return jax.device_put(values, self._whole)

    def _hidden_of(self, slot: int) -> jax.Array:
        """The last hidden state [D] of a slot."""
        return jnp.take(self._hidden, self._on_device(np.int32(slot)), axis=0, mode="clip")

    def _run_extend(self, *host_arguments: np.ndarray | None, length: int) -> None:
        self._cache, self._hidden = self._programs.extend(
            self._weights, self._cache, self._hidden, *self._on_device(host_arguments), length=length
        )

    def _run_copy(self, slot: int, hidden: jax.Array, slots: np.ndarray, *, length: int) -> None:
        source, targets = self._on_device((np.int32(slot), slots))
        self._cache, self._hidden = self._programs.copy(
            self._cache, self._hidden, source, hidden, targets, length=length
        )

    def _encode(self, vision: VisionInputs) -> jax.Array:
        return self._programs.encode(self._weights, self._on_device(vision))

    # Turns --------------------------------------------------------------------------------------------------

    def take(self, sequence: LiveSequence) -> Generation:
        """Returns the finished turn, cut exactly after its closing tag (see `TurnEnds.take`)."""
        return self._turns.take(sequence)

    def warm_up(self, progress: Callable[[], object] = lambda: None) -> int:
        """Compiles the program of every combination of buckets, on empty rows; no sequence may hold a slot.

        Args:
          progress: called after each program.

        Returns:
          Number of programs.
        """
        assert self.free_slots == self.config.num_slots, "warm-up under running sequences"
        self._leaders, self._prefixes = {}, {}
        for vision in self._images.shapes():
            self._encode(vision)
            progress()
        config, width = self.config, self._hidden.shape[1]
        for rows, tokens, length in itertools.product(config.extend_rows, config.extend_buckets, self._lengths):
            for with_images in (False, True):
                features = np.zeros((rows * tokens, width), np.float32) if with_images else None
                index = np.full((rows, tokens), -1, np.int32) if with_images else None
                none = np.zeros(rows, np.int32)
                nowhere = np.full(rows, programs.NO_SLOT, np.int32)
                ids, positions = np.zeros((rows, tokens), np.int32), np.zeros((3, rows, tokens), np.int32)
                self._run_extend(nowhere, none, ids, positions, none, features, index, length=length)
                progress()
        for rows, length in itertools.product({*config.decode_rows, config.width}, self._lengths):
            self._decode_call(programs.no_rows(rows), np.zeros(rows, np.int32), length)
            progress()
        rows = max(config.extend_rows)
        for length in self._lengths:
            self._run_copy(0, self._hidden_of(0), np.full(rows, programs.NO_SLOT, np.int32), length=length)
            progress()
        return self.num_programs()

    def num_programs(self) -> int:
        """Number of programs compiled so far: constant once every bucket has been used."""
        return sum(function._cache_size() for function in self._programs)


def set_weights(engines: Sequence[Engine], state: Any, version: int, *, keep_image_features: bool = False) -> None:
    """`Engine.set_weights` for all engines of a process, which share their images."""
    for engine in engines:
        assert engine.free_slots == engine.config.num_slots, "weights changed under running sequences"
    copies = place_on_each(state, [engine._weights for engine in engines], [engine._mesh for engine in engines])
    for engine, weights in zip(engines, copies, strict=True):
        engine._weights, engine.policy_version = weights, version
    if not keep_image_features:
        engines[0]._images.forget_features()
