"""MFU and peak memory of a LoRA SFT step, and of the same in transformers + torch + peft: python -m benchmarks.sft_mfu.

    python -m benchmarks.sft_mfu --model 7b     on a GPU: Qwen2.5-VL-7B's shapes, random bf16 weights, 8,192 tokens with images
    python -m benchmarks.sft_mfu                the same code with a small model, for a CPU (no MFU: a CPU's peak is not known)

One conversation fills the row, so that the peer has nothing to pad. The peer runs first, in an environment of its own, and has
left the memory when ours begins. `--remat` says what the backward pass computes again; the peer checkpoints each layer.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks.peers import run_peer
from benchmarks.sft_step import CONFIG, GRID, make_sequence, written
from benchmarks.table import Measured, report
from mmsearch_jax.data.batches import BatchShape, TrainingSequence, pack
from mmsearch_jax.distributed.mesh import MeshConfig
from mmsearch_jax.learners.placement import LearnerMesh
from mmsearch_jax.learners.supervised import SupervisedUpdate
from mmsearch_jax.learners.throughput import step_flops, utilisation
from mmsearch_jax.learners.train_state import OptimizerConfig, make_optimizer, split_model
from mmsearch_jax.models.config import ModelConfig
from mmsearch_jax.models.lora import LoRAConfig, add_lora
from mmsearch_jax.models.qwen2_5_vl import Qwen2_5_VL

STEPS, RANK, ALPHA, LEARNING_RATE = 5, 8, 16.0, 1e-4


def main() -> None:
    """Runs both sides and prints seconds, MFU and memory."""
    parser = argparse.ArgumentParser(
        description="MFU and memory of a LoRA SFT step, against transformers + torch + peft."
    )
    parser.add_argument("--model", choices=("small", "7b"), default="small")
    parser.add_argument("--remat", choices=("none", "dots", "full"), default="full")
    parser.add_argument("--length", type=int, help="tokens of the row; by default 8192 for 7b, 512 else")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    large = options.model == "7b"
    config, grid = (ModelConfig(), (1, 64, 80)) if large else (CONFIG, GRID)
    length = options.length or (8192 if large else 512)
    sequence = make_sequence(np.random.default_rng(0), length, 2, config, grid)
    with tempfile.TemporaryDirectory() as temporary:
        work = {
            "config": config.to_hf(), "grid": grid, "files": written(Path(temporary), "step", [[sequence]] * STEPS),
            "rank": RANK, "alpha": ALPHA, "learning_rate": LEARNING_RATE, "image_token_id": config.image_token_id,
        }  # fmt: skip
        file = Path(temporary) / "work.json"
        file.write_text(json.dumps(work))
        peer = run_peer("transformers", "transformers_sft_mfu.py", file)
    own = ours(config, sequence, length, grid, options.remat)
    seconds = [statistics.median(side["seconds"]) for side in (own, peer)]
    print(f"{jax.devices()[0].device_kind}, {length} tokens, remat={options.remat}; {peer['version']}")
    for name, median, memory in zip(("ours", "torch"), seconds, (own["memory"], peer["memory"]), strict=True):
        use = utilisation(own["flops"], median)
        mfu = f", MFU {use['mfu']:.1%}" if "mfu" in use else ""
        print(
            f"{name:5s} {median:.3f} s a step, {use['tflops_per_second']:.2f} TFLOP/s{mfu}, peak memory {memory / 1e9:.1f} GB"
        )
    rows = {"sft step against torch": Measured(seconds[1] / seconds[0], "x", "above 1", seconds[1] > seconds[0])}
    if "mfu" in (use := utilisation(own["flops"], seconds[0])):
        rows["MFU"] = Measured(100 * use["mfu"], "%", "at least 50", use["mfu"] >= 0.5)
    report(rows, options.json)


def ours(
    config: ModelConfig, sequence: TrainingSequence, length: int, grid: tuple[int, int, int], remat: str
) -> dict[str, Any]:
    """Seconds of each step, the operations of one, and the most memory that was used (bytes; 0 where a CPU does not tell)."""
    model = Qwen2_5_VL(config, rngs=nnx.Rngs(0), dtype=jnp.bfloat16, param_dtype=jnp.bfloat16)
    add_lora(model, LoRAConfig(RANK, ALPHA))
    model.set_remat(remat)
    mesh = LearnerMesh.of(MeshConfig())
    graph, trained, frozen = split_model(model)
    optimizer = make_optimizer(OptimizerConfig(learning_rate=LEARNING_RATE), 1000)
    update, state = SupervisedUpdate(graph, optimizer, mesh=mesh), mesh.train_state(trained, frozen, optimizer)
    del model, trained, frozen
    batch = pack([sequence], BatchShape(1, length, len(sequence.images), grid[1] * grid[2]))[0].batch
    flops = step_flops(config, batch, full=False, train_vision=False)
    seconds = []
    for _ in range(STEPS + 1):
        began = time.perf_counter()
        state, metrics = update(state, [mesh.batch(batch)])
        jax.block_until_ready((state, metrics))
        seconds.append(time.perf_counter() - began)
    memory = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)
    return {"seconds": seconds[1:], "flops": flops, "memory": memory}


if __name__ == "__main__":
    main()
