"""Training states and policies to disk and back, against torch and transformers: python -m benchmarks.checkpoint [--quick].

A training state (weights and the two moments of AdamW, float32) by Orbax as `mmsearch sft` saves it, against torch.save and
torch.load of the same tensors; and a policy's weights (`import-hf`, `export-hf`, and what every command does at its start)
against transformers' from_pretrained and save_pretrained of the same folder. All in one folder, on one disk; what is
read must equal what was saved. Training continues while Orbax writes; a separate row gives how long it waits.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from benchmarks import harness
from benchmarks.table import Measured, command_line, faster, report
from mmsearch_jax.learners.checkpoints import Checkpoints
from mmsearch_jax.learners.placement import LearnerMesh
from mmsearch_jax.learners.train_state import TrainState, make_optimizer, split_model
from mmsearch_jax.models import hf
from mmsearch_jax.models.qwen2_5_vl import Qwen2_5_VL
from mmsearch_jax.settings.learning import OptimizerConfig
from mmsearch_jax.settings.policy import MeshConfig

WHY = {
    "import": (
        "transformers maps the file and copies nothing. Ours copies the weights of every layer into one array for all "
        "layers on the device (the memory of a GPU or TPU cannot be mapped)."
    ),
    "export": "Equal except for the noise of the disk: 0.8 to 1.4 in several runs.",
    "save": (
        "Orbax writes chunks that any mesh can read, and training continues during the write: a row below gives how "
        "long it waits."
    ),
    "restore": "The rest of the time is Orbax's reading and assembling of chunks.",
}
"""The reasons for rows that may fall short."""


def main() -> None:
    """Runs both sides in turns and prints the ratios."""
    options = command_line("Checkpoints against torch.", "each once").parse_args()
    turns, repeats = (1, 1) if options.quick else (6, 2)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        work: dict[str, Any] = {"repeats": repeats, "scratch": str(folder / "peer")}
        model, peer = harness.model_and_peer("small", "transformers_checkpoint.py", work, folder, alone=False)
        assert peer is not None
        state = training_state(model)
        policy, whole = (sum(leaf.nbytes for leaf in jax.tree.leaves(tree)) for tree in (nnx.state(model), state))

        def ours() -> dict[str, list[float]]:
            return policy_seconds(model, folder, repeats) | state_seconds(state, folder / "runs", repeats)

        own, others = harness.both(turns, ours, peer)
    saved = peer.found["policy_bytes"], peer.found["state_bytes"]
    if saved != (policy, 3 * policy):
        raise SystemExit(f"the peer saved {saved[0]} bytes and {saved[1]}, ours {policy} and {whole}")
    print(
        f"{peer.found['version']}; a policy of {policy / 1e6:.0f} MB, a state of {whole / 1e6:.0f} MB; median seconds"
    )
    for name, times in own.items():
        peers = f", theirs {statistics.median(others[name]):.3f}" if name in others else ""
        print(f"  {name}: ours {statistics.median(times):.3f}{peers}")
    held = [100 * waited / saved for waited, saved in zip(own["held up"], own["save"], strict=True)]
    share = statistics.median(held)
    rows = {f"checkpoint, {name}": faster(own[name], times, 1, WHY[name]) for name, times in others.items()}
    rows["checkpoint, time that a save holds a run up"] = faster(own["held up"], others["save"], 1)
    rows["checkpoint, share of the saving that holds the run up"] = Measured(
        share, "%", "at most 50", share <= 50, (min(held), max(held))
    )
    report(rows, options.json)


def policy_seconds(model: Qwen2_5_VL, folder: Path, repeats: int) -> dict[str, list[float]]:
    """Seconds to read and to write the weights, in transformers' format both times."""
    read = harness.seconds(lambda: nnx.state(hf.load_pretrained(folder / "model")[0]), repeats)
    _equal(nnx.state(hf.load_pretrained(folder / "model")[0]), nnx.state(model))
    return {
        "import": read,
        "export": harness.seconds(lambda: hf.save_pretrained(model, folder / "exported"), repeats, os.sync),
    }


def training_state(model: Qwen2_5_VL) -> TrainState:
    """A state of all weights with both moments. No two values are equal, as in a run: zeros would not prove that they are
    restored."""
    mesh = LearnerMesh.of(MeshConfig())
    _, trained, frozen = split_model(model)
    state = mesh.train_state(trained, frozen, make_optimizer(OptimizerConfig(learning_rate=1e-3, decay="constant"), 10))
    keys = iter(jax.random.split(jax.random.key(0), len(jax.tree.leaves(state.opt_state))))
    moments = jax.tree.map(lambda x: jax.random.normal(next(keys), x.shape) if x.ndim else x, state.opt_state)
    return dataclasses.replace(state, opt_state=jax.block_until_ready(moments))


def state_seconds(state: TrainState, folder: Path, repeats: int) -> dict[str, list[float]]:
    """Seconds of a save until it is on the disk, of the part that the run waits for, and of a restore."""
    held: list[float] = []

    def empty() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        # Pending writes of earlier calls would slow the next one.
        os.sync()

    def save() -> None:
        with Checkpoints(folder) as checkpoints:
            began = time.perf_counter()
            checkpoints.save(1, state)
            held.append(time.perf_counter() - began)

    def restore() -> TrainState:
        with Checkpoints(folder) as checkpoints:
            return checkpoints.restore(state)[0]

    saved = harness.seconds(save, repeats, empty)
    times = {"save": saved, "held up": held[1:], "restore": harness.seconds(restore, repeats, os.sync)}
    _equal(restore(), state)
    return times


def _equal(found: Any, expected: Any) -> None:
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


if __name__ == "__main__":
    main()
