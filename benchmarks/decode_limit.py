"""A decode step against the time to read the weights and the live KV cache: python -m benchmarks.decode_limit.

    python -m benchmarks.decode_limit --model 7b     on a GPU: Qwen2.5-VL-7B's shapes, random bf16 weights, 64 slots
    python -m benchmarks.decode_limit                the same code with a small model, for a CPU

The device's bandwidth is measured first, in the same run.
"""

from __future__ import annotations

import statistics
import time

import jax
import numpy as np
from flax import nnx

from benchmarks import harness
from benchmarks.card import copy_bytes
from benchmarks.table import Measured, command_line, report
from mmsearch_jax.models.config import ModelConfig
from mmsearch_jax.models.qwen2_5_vl import Qwen2_5_VL
from mmsearch_jax.rollout.engine import Engine
from mmsearch_jax.rollout.sampling import SamplingParams
from mmsearch_jax.rollout.sequence import LiveSequence
from mmsearch_jax.settings.rollout import EngineConfig

STEPS, WARM, TIMED = 16, 2, 6
BF16 = 2
_ON_A_CPU = (
    "On a CPU, the matrix products of 64 rows and the random numbers for 64 x 151,936 logits take longer than "
    "reading the weights. The aim is for a GPU. A small batch is memory-bound (Decoding)."
)


def main() -> None:
    """Prints bandwidth, step time and their ratio."""
    parser = command_line("A decode step against the device's memory bandwidth.", "fewer slots")
    parser.add_argument("--model", choices=("small", "3b", "7b"), default="small")
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument(
        "--length", type=int, help="tokens in each slot's cache; by default 2048, of the small model 128"
    )
    options = parser.parse_args()
    config, large = harness.config_of(options.model), options.model != "small"
    length = options.length or (2048 if large else 128)
    slots = 8 if options.quick else options.slots
    engine = make_engine(config, slots, length)
    moved = bytes_of_a_step(config, slots, length)
    bandwidth, seconds = (copy_bytes(2**30 if large else 2**27), measure_step(engine, slots, length))
    share = moved / bandwidth / seconds
    print(
        f"{jax.devices()[0].device_kind}: {bandwidth / 1e9:.0f} GB/s; a step of {slots} slots of {length} tokens reads"
    )
    print(
        f"{moved / 1e9:.2f} GB, which takes {1e3 * moved / bandwidth:.2f} ms at least; it took {1e3 * seconds:.2f} ms"
    )
    held = Measured(100 * share, "%", "at least 60", share >= 0.6, why=_ON_A_CPU)
    report({"decode step, of the bandwidth": held}, options.json)


def make_engine(config: ModelConfig, slots: int, length: int) -> Engine:
    """An engine with random bf16 weights, whose caches hold `length` tokens and room for decoded ones."""
    sizes = EngineConfig(
        num_slots=slots,
        max_length=length + STEPS * (WARM + TIMED + 1),
        extend_rows=(1, 8),
        extend_buckets=(min(length, 1024),),
        decode_rows=(),
        length_buckets=(),
        decode_steps=STEPS,
    )
    return harness.engine(harness.random_bf16(config), harness.vocabulary(), sizes)


def bytes_of_a_step(config: ModelConfig, slots: int, length: int, width: int = BF16) -> int:
    """Bytes that one step must read: the decoder's weights, the vocabulary projection, and keys and values.

    Args:
      width: bytes of a number.
    """
    abstract = nnx.eval_shape(lambda: Qwen2_5_VL(config, rngs=nnx.Rngs(0)))
    weights = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(abstract.language)))
    text = config.text
    if not text.tie_word_embeddings:
        # A step reads only one row of the input embedding per slot.
        weights -= text.vocab_size * text.hidden_size
    cache = 2 * slots * length * text.num_hidden_layers * text.num_key_value_heads * text.head_dim
    return width * (weights + cache)


def measure_step(engine: Engine, slots: int, length: int) -> float:
    """Seconds of a decode step with every slot live; sampled at temperature 1."""
    prompt = np.random.default_rng(0).integers(100, 100_000, size=length).tolist()
    live = [LiveSequence(list(prompt), [], seed, SamplingParams(1.0), plain=True) for seed in range(slots)]
    for sequence in live:
        engine.acquire(sequence)
        engine.begin_turn(sequence, STEPS * (WARM + TIMED + 1))
    engine.extend(live)
    seconds = []
    for _ in range(WARM + TIMED):
        began = time.perf_counter()
        engine.decode([sequence for sequence in live if sequence.finish is None])
        seconds.append((time.perf_counter() - began) / STEPS)
    return statistics.median(seconds[WARM:])


if __name__ == "__main__":
    main()
