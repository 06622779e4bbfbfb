"""Packed batches from ArrayRecord sets with Grain: shuffled, repeated, mixed, sharded, and resumable to the same bytes.

All processes share one order of samples, a pure function of the seed: position 0, 1, 2, ... maps to a set and a row. The
positions are distributed to a fixed number of lanes (position modulo lanes), and each lane packs its own part of the global
batch. A process serves some of the lanes. Therefore batches do not depend on the number of processes or workers, and the state
consists of a few global positions per lane. This module does not depend on losses or devices.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import grain
import grain.python as pygrain
from absl import flags

from mmsearch_jax.core.errors import ConfigError, DataError
from mmsearch_jax.data.batches import TokenBatch, TrainingSequence, check_patches, check_sequence, join_batches, pack
from mmsearch_jax.data.formats.array_record import ArrayRecordFile
from mmsearch_jax.data.rows import from_record
from mmsearch_jax.data.sequences import SequenceBuilder
from mmsearch_jax.data.storage import localised
from mmsearch_jax.data.usable import Use, why_unusable
from mmsearch_jax.images.processing import ImageProcessor, load_image
from mmsearch_jax.settings.learning import BatchShape

# In version 1 every image had its own row of patches, so that the same samples made other batches.
_STATE_VERSION = 2
# Without this limit, a set in which all rows are bad would be read forever.
_MAX_BAD_RUN = 10_000
# The share of bad rows is known well enough after this many.
_FIRST_DRAWS = 100


@dataclasses.dataclass(frozen=True)
class PipelineConfig:
    """Settings of the order and the batches, and (the last three) of the work, which change neither.

    Attributes:
      shape: of the global batch; `rows` and `images` (both rows) are divided evenly among the lanes.
      lanes: the number of processes must divide it (see `num_lanes`).
      weights: of each set in the mixture; by default equal.
      lookahead: number of batches' worth of tokens that a lane chooses from.
      num_workers: worker processes of this process, divided among its lanes; 0 uses threads of this process.
      prefetch: number of sequences that each lane keeps ready.
      max_unusable: the share of rows that a lane may skip before the run stops.
    """

    shape: BatchShape
    seed: int = 0
    lanes: int = 1
    weights: tuple[float, ...] | None = None
    prompt_style: str = "paper"
    lookahead: int = 2
    num_workers: int = 0
    prefetch: int = 16
    max_unusable: float = 0.5


def num_lanes(shape: BatchShape, at_least: int, num_processes: int) -> int:
    """The number of lanes of a new run: the least multiple of its processes that is `at_least` this and divides the batch.

    If none is, the largest multiple that divides the batch.

    Raises:
      ConfigError: the processes do not divide the batch.
    """
    whole = math.gcd(shape.rows, shape.images)
    fitting = [lanes for lanes in range(num_processes, whole + 1, num_processes) if whole % lanes == 0]
    if not fitting:
        raise ConfigError(
            f"sft.batch has {shape.rows} rows and {shape.images} rows of images, which {num_processes} processes do not "
            "divide evenly: make both multiples of the number of processes"
        )
    return next((lanes for lanes in fitting if lanes >= at_least), fitting[-1])


class Skipped(NamedTuple):
    """A skipped sample, by set and row, and the reason."""

    position: int
    reason: str


class Step(NamedTuple):
    """A batch, the state from which the next one follows (None: its number suffices), and the samples skipped before it."""

    batch: TokenBatch
    state: dict[str, Any] | None = None
    skipped: Sequence[Skipped] = ()


class _Loader:
    """Makes the sequence of one sample; runs in the worker processes."""

    def __init__(
        self,
        sets: Sequence[ArrayRecordFile],
        builder: SequenceBuilder,
        processor: ImageProcessor,
        shape: BatchShape,
        style: str,
    ):
        self._sets, self._builder, self._processor, self._shape, self._style = sets, builder, processor, shape, style
        self._use = Use(processor)

    def __call__(self, sample: tuple[int, int]) -> TrainingSequence | str:
        """The sequence of (set, record number), or the reason why it is skipped."""
        number, record = sample
        file = self._sets[number]
        try:
            row = localised(from_record(file[record]), file.path.parent)
            if not row.turns:
                raise DataError("turns: there is no conversation to train on")
            if why := why_unusable(row, self._use, decode=False):
                raise DataError(why)
            images = [self._processor(load_image(image)) for image in row.images]
            sequence = self._builder.conversation(row, self._style, images)
            check_sequence(sequence, self._shape)
            return sequence
        except DataError as error:
            return f"{file.path.name}, row {record + 1}: {error}"


class Pipeline:
    """Batches of this process.

    Args:
      paths: one ArrayRecord file for each set of the mixture.
      process, num_processes: index and number of shards; by default there is only one.

    Raises:
      DataError: a set is missing, cut short or empty.
      ConfigError: lanes, processes, rows and images do not divide, or weights do not match the sets.
    """

    def __init__(
        self,
        paths: Sequence[str | Path],
        config: PipelineConfig,
        builder: SequenceBuilder,
        processor: ImageProcessor,
        process: int = 0,
        num_processes: int = 1,
    ):
        _check(config, len(paths), process, num_processes)
        self._config = config
        self._sets = [ArrayRecordFile(path) for path in paths]
        for file in self._sets:
            if not len(file):
                raise DataError(
                    f"{file.path} contains no rows: convert the set again, and check its rejected-NAME.jsonl"
                )
        shape, self._layout = config.shape, builder.layout
        check_patches(shape, self._layout, "sft.batch")
        self._shape = dataclasses.replace(shape, rows=shape.rows // config.lanes, images=shape.images // config.lanes)
        per_process = config.lanes // num_processes
        self._lanes = range(process * per_process, (process + 1) * per_process)
        loader = _Loader(self._sets, builder, processor, self._shape, config.prompt_style)
        self._samples = _order([len(file) for file in self._sets], config.weights, config.seed).map(loader)

    def steps(self, state: Mapping[str, Any] | None = None) -> Iterator[Step]:
        """Batches without end, from the beginning or from a `Step.state` (see `merge_states`).

        Raises:
          ConfigError: the state belongs to another order: other sets, seed, lanes, weights or lookahead.
          DataError: too many consecutive rows are bad.
        """
        fingerprint = self._fingerprint()
        if state is not None and state.get("of") != fingerprint:
            raise ConfigError(
                f"the data state belongs to {state.get('of')}, this run to {fingerprint}: resume with its settings"
            )
        begin = {"next": 0, "waiting": []}
        saved = {lane: begin if state is None else state["lanes"].get(str(lane)) for lane in self._lanes}
        if missing := [lane for lane, found in saved.items() if found is None]:
            raise ConfigError(f"the data state lacks lane {missing[0]}: merge the states of all processes first")
        workers = -(-self._config.num_workers // len(self._lanes))
        lanes = [_Lane(self._samples, lane, found, self._config, self._shape, workers) for lane, found in saved.items()]
        try:
            while True:
                skipped: list[Skipped] = []
                batch = join_batches([lane.next_batch(skipped) for lane in lanes], self._layout)
                states = {str(lane.number): lane.state() for lane in lanes}
                yield Step(batch, {"of": fingerprint, "lanes": states}, skipped)
        finally:
            for lane in lanes:
                lane.close()

    def _fingerprint(self) -> dict[str, Any]:
        config = self._config
        return {
            "version": _STATE_VERSION,
            "sets": [[file.path.name, len(file)] for file in self._sets],
            "seed": config.seed,
            "lanes": config.lanes,
            "weights": list(config.weights or ()),
            "lookahead": config.lookahead,
            "prompt_style": config.prompt_style,
            "shape": list(dataclasses.astuple(config.shape)),
        }


def merge_states(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The global state of a step from the states of all processes; a run with any number of processes can resume from it.

    Raises:
      ConfigError: the states belong to different runs.
    """
    if any(state["of"] != states[0]["of"] for state in states):
        raise ConfigError("these data states belong to different runs: merge those of one step of one run")
    return {"of": states[0]["of"], "lanes": {lane: kept for state in states for lane, kept in state["lanes"].items()}}


class _Lane:
    """One lane's packing: sequences that do not fit a batch wait for the next one."""

    def __init__(
        self,
        samples: grain.MapDataset,
        number: int,
        state: Mapping[str, Any],
        config: PipelineConfig,
        shape: BatchShape,
        workers: int,
    ):
        self.number = number
        self._step, self._next = config.lanes, int(state["next"])
        self._shape, self._wanted = shape, shape.rows * shape.length * config.lookahead
        self._waiting: list[tuple[int, TrainingSequence]] = []
        self._lost: list[Skipped] = []
        self._limit, self._drawn, self._bad = config.max_unusable, 0, 0
        for position in state["waiting"]:
            sample = samples[int(position)]
            if isinstance(sample, TrainingSequence):
                self._waiting.append((int(position), sample))
            else:
                # It was sound when the state was saved.
                self._lost.append(Skipped(int(position), str(sample)))
        ours = samples[number + self._next * self._step :: self._step]
        threads = pygrain.ReadOptions(num_threads=min(4, config.prefetch), prefetch_buffer_size=config.prefetch)
        stream = ours.to_iter_dataset(threads)
        if workers:
            if not flags.FLAGS.is_parsed():
                # Grain passes its absl flags to its workers. Our command line does not use absl, so nothing has parsed them.
                flags.FLAGS.mark_as_parsed()
            stream = stream.mp_prefetch(pygrain.MultiprocessingOptions(workers, max(1, config.prefetch // workers)))
        self._stream = iter(stream)

    def state(self) -> dict[str, Any]:
        """Number of samples taken, and the global positions of those that wait."""
        return {"next": self._next, "waiting": [position for position, _ in self._waiting]}

    def next_batch(self, skipped: list[Skipped]) -> TokenBatch:
        """The lane's part of the next batch; appends the skipped samples to `skipped`."""
        skipped += self._lost
        self._lost = []
        bad_run, held_over = 0, len(self._waiting)
        tokens = sum(len(sequence) for _, sequence in self._waiting)
        while tokens < self._wanted:
            position = self.number + self._next * self._step
            sample: Any = next(self._stream)
            self._next += 1
            self._drawn += 1
            if not isinstance(sample, str):
                self._waiting.append((position, sample))
                tokens += len(sample)
                bad_run = 0
                continue
            skipped.append(Skipped(position, sample))
            bad_run += 1
            if bad_run == _MAX_BAD_RUN:
                raise DataError(f"{bad_run} consecutive rows cannot be used; the last: {sample}")
            self._bad += 1
            if self._bad > self._limit * max(self._drawn, _FIRST_DRAWS):
                raise DataError(
                    f"{self._bad} of {self._drawn} rows cannot be used; the last: {sample}. That is more than "
                    f"sft.data.max_unusable = {self._limit:g} of them: repair the set, or raise the limit"
                )
        packed, left = pack([sequence for _, sequence in self._waiting], self._shape, held_over)
        self._waiting = [self._waiting[i] for i in left]
        return packed.batch

    def close(self) -> None:
        """Stops the workers."""
        self._stream.close()


def _order(sizes: Sequence[int], weights: Sequence[float] | None, seed: int) -> grain.MapDataset:
    """(set, record number) at every position: each set is shuffled again in every epoch, and the sets are mixed by weight."""
    parts = [
        # A seed for each set: otherwise sets of equal size would be shuffled alike.
        grain.MapDataset.range(size).seed(seed * 1009 + number).shuffle().repeat().map(_Numbered(number))
        for number, size in enumerate(sizes)
    ]
    return parts[0] if len(parts) == 1 else grain.MapDataset.mix(parts, weights)


@dataclasses.dataclass(frozen=True)
class _Numbered:
    """Adds the set's number to a record's. It is a class because it is pickled for the workers."""

    number: int

    def __call__(self, record: int) -> tuple[int, int]:
        return self.number, int(record)


def _check(config: PipelineConfig, num_sets: int, process: int, num_processes: int) -> None:
    shape, lanes = config.shape, config.lanes
    if not num_sets:
        raise ConfigError("the mixture has no sets: give at least one .array_record file")
    if lanes < 1 or shape.rows % lanes or shape.images % lanes:
        raise ConfigError(
            f"{shape.rows} rows and {shape.images} rows of images do not divide evenly among {lanes} lanes: change them"
        )
    if not 0 <= process < num_processes or lanes % num_processes:
        raise ConfigError(
            f"process {process} of {num_processes} cannot serve {lanes} lanes, into which this run divides its batches: use a "
            f"number of processes that divides {lanes}, or begin a run with a larger sft.data.lanes"
        )
    weights = config.weights
    if weights is not None and (len(weights) != num_sets or min(weights) <= 0):
        raise ConfigError(f"{num_sets} sets need as many weights above 0, not {weights}")
