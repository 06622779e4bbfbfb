"""Our SFT steps against transformers + torch + peft, on the CPU: python -m benchmarks.sft_step [--quick] [--json FILE].

The same random Qwen2.5-VL (27 million parameters), the same initial LoRA weights, AdamW, float32, the same threads.
Twice: sequences of one length, where both do the same work, and realistic lengths, which we pack and a usual trainer pads.
The losses must be equal. The peer runs in its own environment, which is created on first use.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from benchmarks import harness
from benchmarks.peers import Peer
from benchmarks.table import Measured, command_line, faster, report
from mmsearch_jax.data.batches import TokenBatch, TrainingSequence, pack
from mmsearch_jax.images.processing import ProcessedImage
from mmsearch_jax.learners.placement import LearnerMesh
from mmsearch_jax.learners.supervised import SupervisedUpdate
from mmsearch_jax.learners.throughput import step_flops
from mmsearch_jax.learners.train_state import make_optimizer, split_model
from mmsearch_jax.models import hf
from mmsearch_jax.models.adapters import save_adapter
from mmsearch_jax.models.config import ModelConfig, TextConfig, VisionConfig
from mmsearch_jax.models.lora import add_lora
from mmsearch_jax.models.mrope import mrope_positions
from mmsearch_jax.models.qwen2_5_vl import Qwen2_5_VL
from mmsearch_jax.models.vision import model_input
from mmsearch_jax.settings.learning import BatchShape, OptimizerConfig
from mmsearch_jax.settings.policy import LoRAConfig, MeshConfig

CONFIG = ModelConfig(
    text=TextConfig(
        vocab_size=8192,
        hidden_size=512,
        intermediate_size=1408,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=2,
        mrope_section=(8, 12, 12),
        tie_word_embeddings=True,
    ),
    vision=VisionConfig(
        depth=2, hidden_size=128, intermediate_size=256, num_heads=4, out_hidden_size=512, fullatt_block_indexes=(1,)
    ),
    image_token_id=5,
    vision_start_token_id=3,
    vision_end_token_id=4,
    video_token_id=6,
    eos_token_id=2,
)
_PACKED = (
    "Packing fills the rows. On a CPU the attention then covers a whole row of 1,024 tokens, while torch's covers "
    "shorter padded rows. A kernel that skips the blocks of other segments would save that."
)
_PRODUCTS = (
    "On a CPU, matrix products (those of attention included) take nine tenths of the step, and XLA takes 1.3 times "
    "as long for them as torch (the last hot spot, below)."
)
GRID, LEARNING_RATE, ROWS, LENGTH = (1, 12, 16), 1e-3, 4, 512


def make_sequence(
    rng: np.random.Generator,
    length: int,
    num_images: int,
    config: ModelConfig = CONFIG,
    grid: tuple[int, int, int] = GRID,
) -> TrainingSequence:
    """Random tokens in turns, with images among them; every second half of a turn is trained."""
    # Ids below 10 and from 151,643 on are special tokens of the small model and of the published ones.
    ids = rng.integers(10, min(config.text.vocab_size, 151_643), length)
    images, place, size = [], 2, grid[1] * grid[2] // 4
    for _ in range(num_images):
        ids[place - 1], ids[place + size] = config.vision_start_token_id, config.vision_end_token_id
        ids[place : place + size] = config.image_token_id
        images.append(ProcessedImage(rng.integers(0, 256, (grid[1] * grid[2], 588), dtype=np.uint8), grid))
        place += size + 6
    special = (config.image_token_id, config.vision_start_token_id, config.vision_end_token_id)
    weights = (np.arange(length) // 32 % 2 == 1) & ~np.isin(ids, special)
    weights[0] = False
    positions, _ = mrope_positions(ids, [image.grid for image in images], config)
    return TrainingSequence(ids.astype(np.int32), positions, weights.astype(np.float32), images, config.image_token_id)


def realistic(rng: np.random.Generator, count: int) -> list[TrainingSequence]:
    """Lengths of tool-use conversations: log-normal, a median of 350 tokens, at most 1,024; one to three images."""
    made = []
    for _ in range(count):
        num_images = int(rng.choice([1, 2, 3], p=[0.6, 0.25, 0.15]))
        length = int(np.clip(rng.lognormal(np.log(350), 0.6), 64 * num_images + 40, 1024))
        made.append(make_sequence(rng, length, num_images))
    return made


def packed(sequences: Sequence[TrainingSequence], shape: BatchShape) -> TokenBatch:
    """All sequences in one batch."""
    made, left = pack(sequences, shape)
    assert not left, "the shape has no room for all"
    return made.batch


def streamed(sequences: Sequence[TrainingSequence], shape: BatchShape) -> list[TokenBatch]:
    """Batches packed from a stream with a window of two batches of tokens, as in the input pipeline, while the window is
    full."""
    stream, batches = list(sequences), []
    while True:
        seen = np.searchsorted(np.cumsum([len(sequence) for sequence in stream]), 2 * shape.rows * shape.length) + 1
        if seen > len(stream):
            return batches
        made, left = pack(stream[:seen], shape)
        batches.append(made.batch)
        stream = [stream[i] for i in left] + stream[seen:]


def ours(model: Any, batches: Sequence[Sequence[TokenBatch]]) -> dict[str, list[float]]:
    """Losses and seconds of an update from each element."""
    mesh = LearnerMesh.of(MeshConfig())
    graph, trained, frozen = split_model(model)
    optimizer = make_optimizer(OptimizerConfig(learning_rate=LEARNING_RATE, decay="constant", b2=0.999), 1000)
    update = SupervisedUpdate(graph, optimizer, mesh=mesh)
    # Compiled on a separate state, so that the measured run begins with the first update.
    compiled = mesh.train_state(trained, frozen, optimizer)
    jax.block_until_ready(update(compiled, [mesh.batch(batches[0][0])])[1]["loss"])
    state = mesh.train_state(trained, frozen, optimizer)
    losses, seconds = [], []
    for step in batches:
        began = time.perf_counter()
        state, metrics = update(state, [mesh.batch(batch) for batch in step])
        losses.append(float(metrics["loss"]))
        seconds.append(time.perf_counter() - began)
    return {"losses": losses, "seconds": seconds}


def written(folder: Path, name: str, steps: Sequence[Sequence[TrainingSequence]]) -> list[str]:
    """The steps' sequences as files for the peer."""
    names = []
    for number, step in enumerate(steps):
        path = folder / f"{name}{number}.npz"
        arrays: dict[str, np.ndarray] = {}
        for i, sequence in enumerate(step):
            arrays |= {f"ids{i}": sequence.token_ids, f"weights{i}": sequence.loss_weights}
            arrays[f"patches{i}"] = np.concatenate(
                [model_input(image.patches, CONFIG.vision.temporal_patch_size) for image in sequence.images]
            )
        np.savez(path, **arrays)  # pyright: ignore[reportArgumentType]
        names.append(str(path))
    return names


def main() -> None:
    """Runs both sides on both kinds of batches and prints the ratios."""
    options = command_line("SFT steps against transformers + torch + peft.", "fewer steps, once").parse_args()
    turns, steps, count = (1, 4, 24) if options.quick else (3, 6, 64)
    rng = np.random.default_rng(0)
    equal = [[make_sequence(rng, LENGTH, 1) for _ in range(ROWS)] for _ in range(steps)]
    mixed = realistic(rng, count)
    padded = [mixed[i : i + ROWS] for i in range(0, count, ROWS)]
    full = streamed(mixed + realistic(rng, 24), BatchShape(ROWS, 1024, 4 * ROWS, GRID[1] * GRID[2]))
    model = add_lora(Qwen2_5_VL(CONFIG, rngs=nnx.Rngs(0)), LoRAConfig(8, 16.0))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        hf.save_pretrained(Qwen2_5_VL(CONFIG, rngs=nnx.Rngs(0)), folder / "base")
        save_adapter(model, folder / "adapter", str(folder / "base"))
        work = {
            "base": str(folder / "base"),
            "adapter": str(folder / "adapter"),
            "learning_rate": LEARNING_RATE,
            "grid": GRID,
            "threads": os.cpu_count(),
            "equal": written(folder, "equal", equal),
            "mixed": written(folder, "mixed", padded),
        }
        (folder / "work.json").write_text(json.dumps(work))
        peer, losses = Peer("transformers", "transformers_sft.py", folder / "work.json"), []

        def measure() -> dict[str, list[float]]:
            same = ours(model, [[packed(step, BatchShape(ROWS, LENGTH, ROWS, GRID[1] * GRID[2]))] for step in equal])
            losses[:] = same["losses"]
            return {"equal": same["seconds"], "mixed": ours(model, [[batch] for batch in full])["seconds"]}

        own, theirs = harness.both(turns, measure, peer)
    worst = max(abs(a - b) for a, b in zip(losses, peer.found["losses"]["equal"], strict=True))
    if worst > 2e-3:
        raise SystemExit(f"the losses differ by {worst:.2g}: {losses} and {peer.found['losses']['equal']}")
    tokens, own_tokens = sum(map(len, mixed)), sum(int((batch.segment_ids > 0).sum()) for batch in full)
    medians = [statistics.median(side["equal"]) for side in (own, theirs)]
    rates = [turns * own_tokens / sum(own["mixed"]), turns * tokens / sum(theirs["mixed"])]
    flops = step_flops(
        CONFIG, packed(equal[0], BatchShape(ROWS, LENGTH, ROWS, GRID[1] * GRID[2])), full=False, train_vision=False
    )
    fill = own_tokens / sum(batch.segment_ids.size for batch in full)
    padding = tokens / sum(len(step) * max(map(len, step)) for step in padded)
    print(f"{peer.found['version']}; largest difference of {steps} losses {worst:.1e}")
    print(
        f"one length: ours {medians[0]:.2f} s a step ({flops / medians[0] / 1e9:.0f} GFLOP/s), torch {medians[1]:.2f} s"
    )
    print(f"mixed: ours {rates[0]:.0f} useful tokens/s (fill {fill:.0%}), torch {rates[1]:.0f} (fill {padding:.0%})")
    report(
        {
            "sft step, equal tokens": faster(own["equal"], theirs["equal"], 1, _PRODUCTS),
            "sft, realistic lengths": Measured(
                rates[0] / rates[1], "x", "at least 1.5", rates[0] >= 1.5 * rates[1], why=_PACKED
            ),
        },
        options.json,
    )


if __name__ == "__main__":
    main()
