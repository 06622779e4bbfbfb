"""Prompts and observations into the KV cache, against transformers' forward with one: python -m benchmarks.prefill [--quick].

    python -m benchmarks.prefill --model 7b     on a GPU: bf16, random weights, 16 prompts of 2,048 tokens

Two rows: a batch of different prompts into empty caches, then an observation (search results) after each of them, as in a
rollout. The engine's `extend`, with its host work, against the language model's forward with `past_key_values`; neither
computes logits. Equal weights, float32, equal threads; the next tokens must be equal.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks import harness
from benchmarks.table import Measured, command_line, faster, report
from mmsearch_jax.learners.throughput import text_flops
from mmsearch_jax.models.config import TextConfig
from mmsearch_jax.rollout.engine import Engine
from mmsearch_jax.rollout.sampling import SamplingParams
from mmsearch_jax.rollout.sequence import LiveSequence
from mmsearch_jax.settings.rollout import EngineConfig

WHY = (
    "On a CPU nearly all of the time goes into the matrix products of the layers, where XLA is slower than torch "
    "(the last hot spot)."
)


class Work(NamedTuple):
    """Token ids [rows, prompt] and [rows, observation]."""

    prompts: np.ndarray
    observations: np.ndarray


def main() -> None:
    """Runs both sides and prints the ratios."""
    options = command_line("Prefill and extend against torch.", "half the prompts", sizes=True).parse_args()
    small = options.model == "small"
    rows, prompt, observation = (4 if options.quick else 8, 512, 128) if small else (16, 2048, 512)
    # Turns are short: with three of them, two runs differed by a third.
    turns, repeats = harness.turns_and_repeats(options, turns=8)
    rng = np.random.default_rng(0)
    made = Work(*(rng.integers(100, 100_000, (rows, length)) for length in (prompt, observation)))
    tokenizer = harness.vocabulary()
    work: dict[str, Any] = {
        "prompts": made.prompts.tolist(),
        "observations": made.observations.tolist(),
        "repeats": repeats,
        "suppress": harness.unsampled(tokenizer, harness.config_of(options.model).text.vocab_size),
    }
    sizes = EngineConfig(
        num_slots=rows,
        max_length=prompt + observation + 8,
        extend_rows=(rows,),
        extend_buckets=(observation, prompt),
        decode_rows=(),
        length_buckets=(prompt, prompt + observation),
        decode_steps=1,
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model, peer = harness.model_and_peer(options.model, "transformers_prefill.py", work, folder, options.alone)
        engine = harness.engine(model, tokenizer, sizes)
        times, others = harness.both(turns, lambda: ours(engine, made, repeats), peer)
    tokens = next_tokens(engine, made)
    table, text = {}, model.config.text
    flops = {"prompts": forward_flops(text, rows, prompt)}
    flops["observations"] = forward_flops(text, rows, prompt + observation) - flops["prompts"]
    for kind, ids in made._asdict().items():
        median = statistics.median(times[kind])
        table[f"{kind}, tokens/s"] = Measured(ids.size / median, "", "", True)
        table[kind] = Measured(flops[kind] / median / 1e12, "TFLOP/s", "", True)
        if peer is not None:
            assert peer.found["tokens"][kind] == ids.size, "the peer fed another number of tokens"
            print(f"{kind}: {peer.found['version']} {ids.size / statistics.median(others[kind]):.0f} tokens/s")
            table[f"{kind}, equal tokens"] = faster(times[kind], others[kind], 1, WHY)
    if peer is not None and small and (best := peer.found["best"]) != tokens:
        raise SystemExit(f"the next tokens differ, so the times cannot be compared: ours {tokens}, theirs {best}")
    report(table, options.json)


def forward_flops(config: TextConfig, rows: int, length: int) -> float:
    """FLOPs from tokens to their final hidden states, without the vocabulary projection."""
    head = 2 * rows * length * config.hidden_size * config.vocab_size
    return text_flops(config, np.ones((rows, length), np.int32)) - head


def ours(engine: Engine, work: Work, repeats: int) -> dict[str, list[float]]:
    """Seconds of each repeat by kind, after one that compiles."""
    seconds: dict[str, list[float]] = {"prompts": [], "observations": []}
    for _ in range(repeats + 1):
        live = _fed(engine, work, seconds)
        for sequence in live:
            engine.release(sequence)
    return {kind: times[1:] for kind, times in seconds.items()}


def next_tokens(engine: Engine, work: Work) -> list[int]:
    """The token that follows in each row."""
    live = _fed(engine, work, {"prompts": [], "observations": []})
    for sequence in live:
        engine.begin_turn(sequence, 1)
    engine.decode(live)
    return [engine.take(sequence).token_ids[0] for sequence in live]


def _fed(engine: Engine, work: Work, seconds: dict[str, list[float]]) -> list[LiveSequence]:
    """Sequences with prompts and observations in their caches; records the seconds of both."""
    live = [LiveSequence(ids.tolist(), [], 0, SamplingParams(0.0), plain=True) for ids in work.prompts]
    for sequence in live:
        engine.acquire(sequence)
    seconds["prompts"].append(_extend(engine, live))
    for sequence, ids in zip(live, work.observations, strict=True):
        sequence.token_ids += ids.tolist()
    seconds["observations"].append(_extend(engine, live))
    return live


def _extend(engine: Engine, live: list[LiveSequence]) -> float:
    began = time.perf_counter()
    engine.extend(live)
    jax.block_until_ready((engine._cache, engine._hidden))
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
