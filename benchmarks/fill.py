"""How full the learner's batches of GRPO are on pods, simulated with the trainer's own packing.

python -m benchmarks.fill [--size 7b] [--steps 20] [--json FILE]

Not a measurement of a pod: lengths of trajectories are drawn, and packed by `data.batch_plan` into the batches of the published
config for each slice. A search follows three of four turns, as in `benchmarks.scale_sim`; prompts have an image of 300 to 1,280
tokens. For comparison "alone": each process packs only its own trajectories, as many batches as the fullest process needs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from benchmarks.episode_simulation import Delay, Scenario
from benchmarks.table import Measured, command_line, report
from mmsearch_jax.core.config_files import load
from mmsearch_jax.data.batch_plan import PlannedBatch, cut_evenly, halved_shapes, plan_batches
from mmsearch_jax.data.batches import TrainingSequence
from mmsearch_jax.distributed.topologies import parse
from mmsearch_jax.images.processing import ProcessedImage
from mmsearch_jax.settings.commands import GRPOSettings
from mmsearch_jax.settings.learning import BatchShape

SLICES = {"v5p:2x2x4": 0.9, "v5p:4x4x4": 0.7, "v5p:4x8x8": 0.55}
"""Slices of 16, 64 and 256 chips, and the least fill on each."""
PROMPT_TOKENS, OBSERVATION_TOKENS = 450, 435
"""Tokens of instructions and question, and the mean of an observation (between half of it and one and a half)."""
IMAGE_TOKENS = (300, 1280)


def sequences(rng: np.random.Generator, prompts: int, group_size: int, longest: int) -> list[TrainingSequence]:
    """The trajectories of a step, group by group; a group shares its image. Their tokens are zeros."""
    scenario = Scenario(1, 1, prompts, 0.0)
    turn = Delay(scenario.turn_tokens, scenario.token_sigma, 1024)
    made = []
    for _ in range(prompts):
        tokens = int(rng.integers(*IMAGE_TOKENS))
        image = ProcessedImage(np.zeros((4 * tokens, 1), np.uint8), (1, 2, 2 * tokens))
        for _ in range(group_size):
            calls = min(int(rng.geometric(1 - scenario.calls_on)) - 1, scenario.max_calls)
            observations = rng.integers(OBSERVATION_TOKENS // 2, OBSERVATION_TOKENS * 3 // 2, calls).sum()
            length = PROMPT_TOKENS + tokens + observations + turn.draw(rng, calls + 1).sum()
            made.append(_sequence(min(int(length), longest), image))
    return made


def _sequence(length: int, image: ProcessedImage) -> TrainingSequence:
    ids = np.zeros(length, np.int32)
    return TrainingSequence(ids, np.broadcast_to(ids, (3, length)), np.zeros(length, np.float32), [image])


def planned(step: Sequence[TrainingSequence], updates: int, shapes: Sequence[BatchShape]) -> Iterator[PlannedBatch]:
    """The batches of a step, as `PolicyUpdater.learn` plans them."""
    for part in cut_evenly([len(sequence) for sequence in step], updates):
        yield from plan_batches(step[part.start : part.stop], shapes)


def fill_alone(step: Sequence[TrainingSequence], updates: int, shape: BatchShape, processes: int) -> float:
    """The fill if each process packs its own share, cut into mini-batches by number, into its own rows."""
    own = dataclasses.replace(shape, rows=max(1, shape.rows // processes), images=max(1, shape.images // processes))
    needed = np.zeros((processes, updates))
    for process, share in enumerate(np.array_split(np.arange(len(step)), processes)):
        for update, part in enumerate(np.array_split(share, updates)):
            needed[process, update] = len(plan_batches([step[i] for i in part], [own]))
    room = needed.max(axis=0).sum() * own.rows * own.length * processes
    return sum(map(len, step)) / room


def main() -> None:
    """Packs some steps for every slice and prints how full the batches are."""
    parser = command_line("Fill of GRPO's batches on pods, simulated.")
    parser.add_argument("--size", default="7b", help="size of the published model (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=20, help="simulated steps (default: %(default)s)")
    options = parser.parse_args()
    rows: dict[str, Measured] = {}
    for slice_name, aim in SLICES.items():
        settings = load(GRPOSettings, f"configs/grpo_qwen2_5_vl_{options.size}.py:{slice_name}").settings
        recipe, mesh, topology = settings.grpo, settings.mesh, parse(slice_name)
        shapes = halved_shapes(recipe.batch, recipe.halvings, mesh.dcn * mesh.data * mesh.fsdp, mesh.sequence)
        one_row_a_chip = dataclasses.replace(recipe.batch, rows=topology.num_devices, images=2 * topology.num_devices)
        fills, alone, lengths = [], [], []
        for number in range(options.steps):
            rng = np.random.default_rng(number)
            step = sequences(rng, recipe.prompts_per_step, recipe.group_size, settings.episode.max_trajectory_tokens)
            lengths += [len(sequence) for sequence in step]
            made = list(planned(step, recipe.updates_per_batch, shapes))
            fills.append(sum(map(len, step)) / sum(one.shape.rows * one.shape.length for one in made))
            alone.append(fill_alone(step, recipe.updates_per_batch, one_row_a_chip, topology.num_processes))
        name = f"{slice_name}, {topology.num_devices} chips"
        value = 100 * float(np.mean(fills))
        spread = (100 * min(fills), 100 * max(fills))
        rows[name] = Measured(value, "%", f"at least {100 * aim:g}", value >= 100 * aim, spread)
        rows[f"{name}, alone"] = Measured(100 * float(np.mean(alone)), "%", "", True)
        print(
            f"{name}: data {mesh.data}, fsdp {mesh.fsdp}, tensor {mesh.tensor}, sequence {mesh.sequence}; "
            f"{recipe.batch.rows} rows; trajectories of {np.mean(lengths):,.0f} tokens in the mean"
        )
    report(rows, options.json)


if __name__ == "__main__":
    main()
