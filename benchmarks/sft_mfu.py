"""MFU and peak memory of a LoRA step, also in transformers + torch + peft: python -m benchmarks.sft_mfu.

    python -m benchmarks.sft_mfu --model 7b     on a GPU: Qwen2.5-VL-7B's shapes, random bf16 weights, 8,192 tokens with images
    python -m benchmarks.sft_mfu                the same code with a small model, for a CPU (no MFU: a CPU's peak is not known)
    ... --objective grpo                        the clipped surrogate of GRPO on the same tokens instead of their cross-entropy

One conversation fills the row, so that the peer does not pad. The peer runs first, in its own environment, and has freed its
memory when ours begins. `--remat` selects what the backward pass recomputes; the peer checkpoints each layer.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import harness
from benchmarks.peers import run_peer
from benchmarks.sft_step import GRID, make_sequence, written
from benchmarks.table import Measured, command_line, faster, report
from mmsearch_jax.data.batches import TrainingSequence, pack
from mmsearch_jax.learners.placement import LearnerMesh
from mmsearch_jax.learners.policy_update import PolicyUpdater
from mmsearch_jax.learners.supervised import SupervisedUpdate
from mmsearch_jax.learners.throughput import step_flops, utilisation
from mmsearch_jax.learners.train_state import make_optimizer, split_model
from mmsearch_jax.models.config import ModelConfig
from mmsearch_jax.models.lora import add_lora
from mmsearch_jax.models.qwen2_5_vl import Qwen2_5_VL
from mmsearch_jax.settings.learning import BatchShape, GRPOConfig, GRPOLossConfig, OptimizerConfig
from mmsearch_jax.settings.policy import LoRAConfig, MeshConfig

STEPS, RANK, ALPHA, LEARNING_RATE = 5, 8, 16.0, 1e-4
WHY = (
    "MFU counts only the FLOPs that a step needs. With the second forward pass of remat, and attention over both "
    "halves of the square, an H200 computed at 70 % of its rate for matrix products, close to the log-prob pass (by "
    "hand count, in the last hot spot)."
)
"""The reason for the MFU."""


def main() -> None:
    """Runs both sides and prints seconds, MFU and memory."""
    parser = command_line("MFU and memory of a LoRA step, against torch.", "half the tokens, two steps", sizes=True)
    parser.add_argument("--objective", choices=("sft", "grpo"), default="sft")
    parser.add_argument("--remat", choices=("none", "dots", "full"), default="full")
    parser.add_argument("--length", type=int, help="tokens of the row; by default 8192, of the small model 512")
    options = parser.parse_args()
    small, name = options.model == "small", options.objective
    config, grid = harness.config_of(options.model), GRID if small else (1, 64, 80)
    length = (options.length or (512 if small else 8192)) // (2 if options.quick else 1)
    steps = 2 if options.quick else STEPS
    sequence = make_sequence(np.random.default_rng(0), length, 2, config, grid)
    peer = None
    with tempfile.TemporaryDirectory() as temporary:
        work = {
            "config": config.to_hf(),
            "grid": grid,
            "files": written(Path(temporary), "step", [[sequence]] * steps),
            "rank": RANK,
            "alpha": ALPHA,
            "learning_rate": LEARNING_RATE,
            "image_token_id": config.image_token_id,
            "objective": name,
        }
        file = Path(temporary) / "work.json"
        file.write_text(json.dumps(work))
        if not options.alone:
            peer = run_peer("transformers", "transformers_sft_mfu.py", file)
    own = ours(config, sequence, length, grid, options, steps)
    sides = {"ours": own} | ({peer["version"]: peer} if peer else {})
    print(f"{jax.devices()[0].device_kind}, {length} tokens, remat={options.remat}")
    for side, found in sides.items():
        median = statistics.median(found["seconds"])
        use = utilisation(own["flops"], median)
        mfu = f", MFU {use['mfu']:.1%}" if "mfu" in use else ""
        memory = f", {found['memory'] / 1e9:.1f} GB" if found["memory"] else ""
        print(f"{side}: {median:.3f} s a step, {use['tflops_per_second']:.2f} TFLOP/s{mfu}{memory}")
    use = utilisation(own["flops"], statistics.median(own["seconds"]))
    rows = {f"{name} step": Measured(use["tflops_per_second"], "TFLOP/s", "", True)}
    if own["memory"]:
        rows[f"{name} step, peak memory"] = Measured(own["memory"] / 1e9, "GB", "", True)
    if peer is not None:
        assert peer["tokens"] == length, "the peer learnt from another number of tokens"
        rows[f"{name} step against torch"] = faster(own["seconds"], peer["seconds"], 1)
        if own["memory"]:
            share = peer["memory"] / own["memory"]
            rows[f"{name} step, memory of torch / ours"] = Measured(share, "x", "at least 1", share >= 1)
    if "mfu" in use:
        rows[f"{name} step, MFU"] = Measured(100 * use["mfu"], "%", "at least 50", use["mfu"] >= 0.5, why=WHY)
    report(rows, options.json)


def ours(
    config: ModelConfig, sequence: TrainingSequence, length: int, grid: tuple[int, int, int], options: Any, steps: int
) -> dict[str, Any]:
    """Seconds of each step, the FLOPs of one, and the peak memory (bytes; 0 if it is unknown: on a CPU, and on a GPU whose
    peak was reached before the steps)."""
    mesh, shape = LearnerMesh.of(MeshConfig()), BatchShape(1, length, len(sequence.images), grid[1] * grid[2])
    graph, trained, frozen = split_model(random_policy(config, options.remat))
    optimizer = make_optimizer(OptimizerConfig(learning_rate=LEARNING_RATE), 1000)
    state = mesh.train_state(trained, frozen, optimizer)
    del trained, frozen
    batch = pack([sequence], shape)[0].batch
    flops = step_flops(config, batch, full=False, train_vision=False)
    if options.objective == "sft":
        update = SupervisedUpdate(graph, optimizer, mesh=mesh)

        def step(state: Any) -> Any:
            return update(state, [mesh.batch(batch)])[0]
    else:
        step = grpo_step(graph, optimizer, config, mesh, shape, sequence)
    before = height()
    seconds = []
    for _ in range(1 + steps):
        began = time.perf_counter()
        state = jax.block_until_ready(step(state))
        seconds.append(time.perf_counter() - began)
    memory = height()
    # The first compiles.
    return {"seconds": seconds[1:], "flops": flops, "memory": memory if memory > before else 0}


def height() -> int:
    """Peak bytes in use on the device since the process began; 0 if the device does not report them."""
    return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)


def random_policy(config: ModelConfig, remat: str) -> Qwen2_5_VL:
    """Random weights in bf16, with low-rank updates beside them."""
    model = add_lora(harness.random_bf16(config), LoRAConfig(RANK, ALPHA))
    model.set_remat(remat)
    return model


def grpo_step(
    graph: Any, optimizer: Any, config: ModelConfig, mesh: LearnerMesh, shape: BatchShape, sequence: TrainingSequence
) -> Callable[[Any], Any]:
    """An update from one trajectory, as if a nearly uniform policy had sampled it."""
    recipe = GRPOConfig(batch=shape, loss=GRPOLossConfig(kl_coef=0.0), updates_per_batch=1)
    updater = PolicyUpdater(graph, None, optimizer, recipe, config, mesh, full=False)
    extras = {
        "rollout_logprobs": np.full(len(sequence), -np.log(config.text.vocab_size), np.float32),
        "advantages": np.ones(len(sequence), np.float32),
    }
    trajectory = dataclasses.replace(sequence, extras=extras)
    return lambda state: updater.learn(state, [trajectory])[0]


if __name__ == "__main__":
    main()
