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
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mmsearch_jax.core.errors import CheckpointError, DataError
from mmsearch_jax.core.protocol import CLOSING_TAGS
from mmsearch_jax.data.chat import ChatRenderer
from mmsearch_jax.images.processing import ImageProcessor
from mmsearch_jax.models.mrope import mrope_positions
from mmsearch_jax.rollout import jitted, programs, sampling
from mmsearch_jax.rollout.episode import Generation
from mmsearch_jax.rollout.images import ImageCache
from mmsearch_jax.rollout.jitted import empty_slots, single_layers
from mmsearch_jax.rollout.placement import host_mesh, place_weights
from mmsearch_jax.rollout.sequence import EngineStats, LiveSequence, PreparedImage, bucket
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
    """Weights, slots and caches. Every method blocks until it is done; do not call two from different threads at once.

    Args:
      model: a `Qwen2_5_VL`.
      tokenizer: of the same checkpoint: a transformers fast tokenizer or a `tokenizers.Tokenizer`.
      image_processor: of the same checkpoint.
      config: sizes, and the number of chips of this host over which weights and caches are split; `max_length` must be set.
      seed: of the sampling keys, together with each trajectory's own seed.
      cache: an empty cache to use instead of a `KVCache` (for models of another kind).
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        image_processor: ImageProcessor,
        config: EngineConfig,
        seed: int = 0,
        cache: Any | None = None,
    ):
        self.config, self.renderer = config, ChatRenderer(tokenizer)
        self.model_config = model.config
        self.policy_version = 0
        self.stats = EngineStats()
        if model.config.image_token_id != self.renderer.image_pad:
            raise CheckpointError(
                f"the model's image token is {model.config.image_token_id}, the tokenizer's is "
                f"{self.renderer.image_pad}: take both from one checkpoint"
            )
        graph, shapes = single_layers(model)
        self._mesh = host_mesh(config.tensor)
        self._weights = place_weights(nnx.state(model), shapes, self._mesh)
        vocabulary = model.config.text.vocab_size
        self._automaton = sampling.TagAutomaton(self.renderer.token_bytes, CLOSING_TAGS, vocabulary)
        stop = np.zeros(vocabulary, bool)
        stop[list(self.renderer.stop_ids)] = True
        has_text = np.zeros(vocabulary, bool)
        has_text[: self.renderer.vocabulary_size] = [bool(text) for text in self.renderer.token_bytes]
        empty, hidden = empty_slots(model.config, config, model.dtype)
        cache = empty if cache is None else cache
        places = jitted.places(self._mesh, cache, model.config.text.num_key_value_heads)
        self._cache: Any = jax.device_put(cache, places.cache)
        self._hidden = jax.device_put(hidden, places.whole)
        self._whole = places.whole
        self._constants = self._on_device(
            programs.DecodeConstants(self._automaton.table, stop, ~(has_text | stop), np.uint32(seed))
        )
        self._owners: list[LiveSequence | None] = [None] * config.num_slots
        self._leaders: dict[Any, LiveSequence] = {}
        """By prompt: the sequence that feeds it; the others of the group wait for its cache."""
        self._prefixes: dict[Any, _Prefix] = {}
        self._lengths = config.lengths
        self._programs = jitted.jit_programs(graph, config, places)
        self._images = ImageCache(
            image_processor,
            model.config.vision,
            config,
            lambda vision: self._programs.encode(self._weights, self._on_device(vision)),
        )

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
        assert self.free_slots == self.config.num_slots, "weights changed under running sequences"
        self._weights, self.policy_version = place_weights(state, self._weights, self._mesh), version
        if not keep_image_features:
            self._images.forget_features()

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
        sequence.slot, sequence.fed = self._owners.index(None), 0
        self._owners[sequence.slot] = sequence

    def release(self, sequence: LiveSequence) -> None:
        """Takes the slot back. If the sequence returns, its tokens are fed again."""
        if sequence.slot is not None:
            self._owners[sequence.slot] = None
            self._prefixes = {key: p for key, p in self._prefixes.items() if p.owner is not sequence}
            self._leaders = {key: leader for key, leader in self._leaders.items() if leader is not sequence}
        sequence.slot, sequence.fed = None, 0

    def begin_turn(self, sequence: LiveSequence, max_tokens: int) -> None:
        """Begins a turn of at most `max_tokens`, which is sampled once all tokens are fed."""
        assert len(sequence.token_ids) + max_tokens <= self.config.max_length, "the engine's max_length is too small"
        sequence.budget, sequence.state, sequence.finish = max_tokens, 0, None
        sequence.new_ids, sequence.new_logprobs = [], []

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
            image for s in work if shown in s.token_ids[s.fed :] for image in s.images
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
            key = (tuple(sequence.token_ids), *(image.key for image in sequence.images))
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
        slots = np.full(num_rows, programs.NO_SLOT, np.int32)
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
            pads = np.flatnonzero(chunk == self.renderer.image_pad)
            if pads.size:
                if features is None or feature_index is None:
                    features = np.zeros((num_rows * width, self._hidden.shape[1]), np.float32)
                    feature_index = np.full((num_rows, width), -1, np.int32)
                before = sequence.token_ids[: sequence.fed].count(self.renderer.image_pad)
                own = np.concatenate([image.features for image in sequence.images if image.features is not None])
                features[row * width + pads] = own[before : before + pads.size]
                feature_index[row, pads] = row * width + pads
        length = bucket(int((starts + num_new).max()), self._lengths)
        self._run_extend(slots, starts, token_ids, positions, num_new, features, feature_index, length=length)
        for row, sequence in enumerate(sequences):
            sequence.fed += int(num_new[row])
        self.stats.extend_calls += 1
        self.stats.extended_tokens += int(num_new.sum())

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
        decoded = self._decode_call(rows, lengths, length)
        for place, sequence in zip(places, sequences, strict=True):
            count, running = int(decoded.counts[place]), bool(decoded.running[place])
            sequence.new_ids += decoded.tokens[place, :count].tolist()
            sequence.new_logprobs += decoded.logprobs[place, :count].tolist()
            sequence.fed += count if running else count - 1
            sequence.state = int(decoded.states[place])
            if not running:
                sequence.finish = self._finish(sequence)
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

    # Turns --------------------------------------------------------------------------------------------------

    def _finish(self, sequence: LiveSequence) -> str:
        if not sequence.plain and sequence.state == self._automaton.accept:
            return "closed"
        return "stop" if sequence.new_ids[-1] in self.renderer.stop_ids else "length"

    def take(self, sequence: LiveSequence) -> Generation:
        """Returns the finished turn, cut exactly after its closing tag.

        A last token that contains bytes after the end of the tag is dropped (it is not in the cache either); the
        rest of the tag becomes `forced_ids`.
        """
        assert sequence.finish is not None
        ids, logprobs, forced = sequence.new_ids, sequence.new_logprobs, []
        if sequence.finish == "closed":
            text = b"".join(self.renderer.token_bytes[i] for i in ids)
            end = self._automaton.find(text)
            assert end is not None, "the automaton and the text disagree"
            if end < len(text):
                kept = len(text) - len(self.renderer.token_bytes[ids[-1]])
                forced = self.renderer.encode(text[kept:end].decode("utf-8", errors="replace"))
                ids, logprobs = ids[:-1], logprobs[:-1]
        sequence.budget = 0
        return Generation(ids, logprobs, sequence.finish, forced)

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
            self._programs.encode(self._weights, self._on_device(vision))
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
