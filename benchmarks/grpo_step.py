"""Our GRPO updates against Tunix's trainer, on the CPU: python -m benchmarks.grpo_step [--quick] [--json FILE].

The same random Qwen2.5 (text only, 27 million parameters, all trained), the same trajectories with their old log-probs and
advantages, AdamW, float32, the same threads. The lengths are those of tool-use episodes, so the figure is useful tokens per
second: we pack the trajectories, Tunix's learner pads them. Losses must be equal. The peer runs in its own environment.
"""

from __future__ import annotations

import dataclasses
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

from benchmarks.peers import run_peer, save_text_alone
from benchmarks.sft_step import CONFIG
from benchmarks.table import command_line, faster, report
from mmsearch_jax.data.batches import TrainingSequence, pack
from mmsearch_jax.learners.logprobs import token_logprobs
from mmsearch_jax.learners.placement import LearnerMesh
from mmsearch_jax.learners.policy_update import PolicyUpdater
from mmsearch_jax.learners.train_state import make_optimizer, split_model
from mmsearch_jax.models.mrope import mrope_positions
from mmsearch_jax.models.qwen2_5_vl import Qwen2_5_VL
from mmsearch_jax.settings.learning import BatchShape, GRPOConfig, GRPOLossConfig, OptimizerConfig
from mmsearch_jax.settings.policy import MeshConfig

ROWS, PROMPT, COMPLETION, GROUP, LEARNING_RATE, PAD = 4, 128, 896, 8, 1e-4, 2
LENGTH = PROMPT + COMPLETION


@dataclasses.dataclass
class Batch:
    """What one step learns from: trajectories, where their prompts end, and one advantage each."""

    sequences: list[TrainingSequence]
    prompts: np.ndarray
    advantages: np.ndarray


def make_batch(rng: np.random.Generator, model: Qwen2_5_VL, num_groups: int) -> Batch:
    """Groups of trajectories: prompts of 32 to 128 tokens, log-normal completions with a median of 250 and at most 896 tokens,
    of which every third stretch is an observation."""
    made, prompts = [], []
    for _ in range(num_groups):
        prompt = rng.integers(10, CONFIG.text.vocab_size, rng.integers(32, PROMPT + 1))
        for _ in range(GROUP):
            length = int(np.clip(rng.lognormal(np.log(250), 0.6), 40, COMPLETION))
            ids = np.concatenate([prompt, rng.integers(10, CONFIG.text.vocab_size, length)]).astype(np.int32)
            weights = (np.arange(len(ids)) >= len(prompt)) & (np.arange(len(ids)) // 48 % 3 != 2)
            weights[len(prompt)] = True
            positions, _ = mrope_positions(ids, [], CONFIG)
            made.append(TrainingSequence(ids, positions, weights.astype(np.float32)))
            prompts.append(len(prompt))
    advantages = rng.normal(size=len(made)).astype(np.float32)
    return Batch(with_old_logprobs(model, made, advantages), np.asarray(prompts), advantages)


def with_old_logprobs(
    model: Qwen2_5_VL, sequences: list[TrainingSequence], advantages: np.ndarray
) -> list[TrainingSequence]:
    """The trajectories as if this policy had sampled them, with their advantages."""
    score = nnx.jit(lambda model, batch: token_logprobs(model, batch, 1.0).logprobs)
    done = []
    for sequence, advantage in zip(sequences, advantages, strict=True):
        found = score(model, pack([sequence], BatchShape(1, LENGTH))[0].batch)
        logprobs = np.asarray(jnp.where(sequence.loss_weights > 0, found[0, : len(sequence)], 0.0), np.float32)
        extras = {"rollout_logprobs": logprobs, "advantages": np.full(len(sequence), advantage, np.float32)}
        done.append(dataclasses.replace(sequence, extras=extras))
    return done


def ours(model: Qwen2_5_VL, batches: list[Batch]) -> dict[str, list[float]]:
    """Loss and seconds of an update from each batch."""
    mesh = LearnerMesh.of(MeshConfig())
    graph, trained, frozen = split_model(model)
    optimizer = make_optimizer(OptimizerConfig(learning_rate=LEARNING_RATE, decay="constant"), 1000)
    recipe = GRPOConfig(batch=BatchShape(ROWS, LENGTH), loss=GRPOLossConfig(kl_coef=0.0), updates_per_batch=1)
    updater = PolicyUpdater(graph, None, optimizer, recipe, CONFIG, mesh)
    # Compiled on a separate state, so that the measured run begins with the first update.
    updater.learn(mesh.train_state(trained, frozen, optimizer), batches[0].sequences)
    state = mesh.train_state(trained, frozen, optimizer)
    losses, seconds = [], []
    for batch in batches:
        began = time.perf_counter()
        state, metrics, _ = updater.learn(state, batch.sequences)
        jax.block_until_ready(state.params)
        seconds.append(time.perf_counter() - began)
        losses.append(metrics["loss"])
    return {"losses": losses, "seconds": seconds}


def written(folder: Path, batches: list[Batch]) -> list[str]:
    """The batches as files for the peer."""
    names = []
    for number, batch in enumerate(batches):
        arrays: dict[str, Any] = {"prompts": batch.prompts, "advantages": batch.advantages}
        for i, sequence in enumerate(batch.sequences):
            arrays |= {f"ids{i}": sequence.token_ids, f"weights{i}": sequence.loss_weights}
            arrays[f"old{i}"] = sequence.extras["rollout_logprobs"]
        path = folder / f"step{number}.npz"
        np.savez(path, **arrays)
        names.append(str(path))
    return names


def main() -> None:
    """Runs both sides and prints the ratio."""
    options = command_line(
        "GRPO updates against Tunix's trainer.", "two steps of one group, not four of two"
    ).parse_args()
    rng, model = np.random.default_rng(0), Qwen2_5_VL(CONFIG, rngs=nnx.Rngs(0))
    batches = [make_batch(rng, model, 1 if options.quick else 2) for _ in range(2 if options.quick else 4)]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        save_text_alone(model, folder / "text")
        work = {
            "text_folder": str(folder / "text"),
            "text": dataclasses.asdict(CONFIG.text),
            "steps": written(folder, batches),
            "rows": ROWS,
            "prompt": PROMPT,
            "completion": COMPLETION,
            "group_size": GROUP,
            "pad": PAD,
            "learning_rate": LEARNING_RATE,
        }
        (folder / "work.json").write_text(json.dumps(work))
        peer = run_peer("tunix", "tunix_grpo.py", folder / "work.json")
    own = ours(model, batches)
    worst = max(abs(a - b) for a, b in zip(own["losses"], peer["losses"], strict=True))
    print(f"{peer['version']}; largest difference of {len(batches)} losses {worst:.1e}: {np.round(own['losses'], 4)}")
    if worst > 1e-3:
        raise SystemExit(f"the losses differ: {own['losses']} and {peer['losses']}")
    tokens = [sum(map(len, batch.sequences)) for batch in batches]
    rates = [statistics.median(n / s for n, s in zip(tokens, side["seconds"], strict=True)) for side in (own, peer)]
    fill = sum(tokens) / sum(len(batch.sequences) * LENGTH for batch in batches)
    print(f"useful tokens/s: ours {rates[0]:.0f}, Tunix {rates[1]:.0f} (of its padded batches {fill:.0%} is real)")
    each = [[s / n for n, s in zip(tokens, side["seconds"], strict=True)] for side in (own, peer)]
    report({"grpo step, useful tokens/s": faster(*each, 1.3)}, options.json)


if __name__ == "__main__":
    main()
