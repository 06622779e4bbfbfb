"""The log-prob pass of the learner against torch's forward, log_softmax and gather: python -m benchmarks.logprobs [--quick].

    python -m benchmarks.logprobs --model 7b     on a GPU: bf16, 8,192 tokens with images, random weights

Conversations of one length, with an image each, so that no side pads. Ours computes logits in chunks of 1,024 tokens and also
returns the entropies; torch holds the logits of the whole batch, as trainers commonly do. Equal weights, float32, equal
threads; the log-probs must agree. Also the peak memory of the pass, above weights and batch.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

import jax
import numpy as np
from flax import nnx

from benchmarks import harness
from benchmarks.sft_step import make_sequence, written
from benchmarks.table import Measured, command_line, faster, report
from mmsearch_jax.data.batches import pack
from mmsearch_jax.learners.logprobs import token_logprobs
from mmsearch_jax.learners.throughput import text_flops, vision_flops
from mmsearch_jax.settings.learning import BatchShape

TOLERANCE = 1e-3


def main() -> None:
    """Runs both sides and prints the ratios."""
    parser = command_line("Log-probs of given tokens against torch.", "a quarter of the tokens", sizes=True)
    options = parser.parse_args()
    small = options.model == "small"
    config, (turns, repeats) = harness.config_of(options.model), harness.turns_and_repeats(options)
    grid = (1, 12, 16) if small else (1, 64, 80)
    rows, length = (2 if options.quick else 8, 512) if small else (2, 4096)
    rng = np.random.default_rng(0)
    sequences = [make_sequence(rng, length, 1, config, grid) for _ in range(rows)]
    batch = jax.device_put(pack(sequences, BatchShape(rows, length, rows, grid[1] * grid[2]))[0].batch)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        work = {
            "file": written(folder, "batch", [sequences])[0],
            "grid": grid,
            "image_token_id": config.image_token_id,
            "repeats": repeats,
            "scores": str(folder / "scores.npy"),
        }
        model, peer = harness.model_and_peer(options.model, "transformers_logprobs.py", work, folder, options.alone)
        graph, weights = nnx.split(model)
        score = jax.jit(lambda weights, batch: token_logprobs(nnx.merge(graph, weights), batch, 1.0).logprobs)
        own, others = harness.both(turns, lambda: {"": harness.seconds(lambda: score(weights, batch), repeats)}, peer)
        theirs = None if peer is None else np.load(work["scores"])
    memory = harness.memory(score, weights, batch)
    flops = text_flops(config.text, batch.segment_ids) + vision_flops(
        config.vision, batch.vision.window_segment_ids, batch.vision.image_segment_ids
    )
    median = statistics.median(own[""])
    print(f"ours: {rows * length / median:.0f} tokens/s, {flops / median / 1e12:.2f} TFLOP/s, {memory / 1e6:.0f} MB")
    table = {
        "log-probs, tokens/s": Measured(rows * length / median, "", "", True),
        "log-probs": Measured(flops / median / 1e12, "TFLOP/s", "", True),
    }
    if peer is not None and theirs is not None:
        assert peer.found["tokens"] == rows * length, "the peer scored another number of tokens"
        if small:
            worst = harness.same("log-probs", np.asarray(score(weights, batch))[:, 1:], theirs, TOLERANCE)
            print(f"largest difference of {theirs.size} log-probs: {worst:.1e}")
        rate = rows * length / statistics.median(others[""])
        print(f"{peer.found['version']}: {rate:.0f} tokens/s, {peer.found['memory'] / 1e6:.0f} MB")
        table["log-probs, equal tokens"] = faster(own[""], others[""], 1)
        share = peer.found["memory"] / memory
        table["log-probs, memory of torch / ours"] = Measured(share, "x", "at least 2", share >= 2)
    report(table, options.json)


if __name__ == "__main__":
    main()
