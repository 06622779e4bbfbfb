"""Tokens per second of our engine against transformers' `generate` and Tunix's sampler: python -m benchmarks.decode.

The same random weights (Qwen2.5-VL's language model: 8 layers of 512, its true vocabulary), the same prompts, greedy, float32,
the same threads; the tokens must be equal. Each peer runs in an environment of its own, made on first use.
Needs the `parity` extra, which brings the vocabulary.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from benchmarks.peers import run_peer, save_text_alone
from benchmarks.table import Measured, report
from mmsearch_jax.data.image_processing import ImageProcessor
from mmsearch_jax.models import hf
from mmsearch_jax.models.config import ModelConfig, TextConfig, VisionConfig
from mmsearch_jax.models.qwen2_5_vl import Qwen2_5_VL
from mmsearch_jax.models.tokenizer import load_tokenizer
from mmsearch_jax.rollout.engine import Engine
from mmsearch_jax.rollout.sampling import SamplingParams
from mmsearch_jax.rollout.sequence import EngineConfig, LiveSequence
from tests.parity import qwen_vocabulary

CONFIG = ModelConfig(
    text=TextConfig(
        hidden_size=512, intermediate_size=1408, num_hidden_layers=8, num_attention_heads=8, num_key_value_heads=2,
        mrope_section=(8, 12, 12), tie_word_embeddings=True,
    ),
    vision=VisionConfig(
        depth=1, hidden_size=32, intermediate_size=64, num_heads=2, out_hidden_size=512, fullatt_block_indexes=(0,)
    ),
)  # fmt: skip
BATCH, PROMPT, NEW = 16, (32, 64), 128


def make_work(folder: Path, repeats: int, new_tokens: int) -> dict[str, Any]:
    """Writes the weights twice (as Qwen2.5-VL, and its text alone as Qwen2.5), and says what is to be done with them."""
    model = Qwen2_5_VL(CONFIG, rngs=nnx.Rngs(0))
    hf.save_pretrained(model, folder / "vl")
    qwen_vocabulary.write(folder / "vl", qwen_vocabulary.ranks())
    save_text_alone(model, folder / "text")
    rng = np.random.default_rng(0)
    prompts = [rng.integers(100, 100_000, size=int(rng.integers(*PROMPT))).tolist() for _ in range(BATCH)]
    renderer = make_engine(folder / "vl").renderer
    stop = sorted(renderer.stop_ids)
    wordless = [i for i, text in enumerate(renderer.token_bytes) if not text and i not in stop]
    return {
        "folder": str(folder / "vl"), "text_folder": str(folder / "text"), "text": dataclasses.asdict(CONFIG.text),
        "prompts": prompts, "new_tokens": new_tokens, "repeats": repeats, "pad": stop[0], "stop": stop,
        "suppress": wordless + list(range(renderer.vocabulary_size, CONFIG.text.vocab_size)),
        "threads": os.cpu_count() or 1,
    }  # fmt: skip


def make_engine(folder: Path) -> Engine:
    """Our engine over the weights in a folder."""
    model, _ = hf.load_pretrained(folder)
    config = EngineConfig(
        num_slots=BATCH, max_length=PROMPT[1] + NEW, extend_rows=(BATCH,), extend_buckets=(PROMPT[1],), decode_rows=(),
        length_buckets=(), decode_steps=NEW,
    )  # fmt: skip
    return Engine(model, load_tokenizer(folder), ImageProcessor(), config)


def generate(work: dict[str, Any]) -> dict[str, Any]:
    """Ours, in this process."""
    engine, seconds, tokens = make_engine(Path(work["folder"])), [], []
    for _ in range(work["repeats"] + 1):
        began = time.perf_counter()
        # Other prompts of the same lengths are not needed: a prefix lives no longer than its sequence.
        live = [LiveSequence(list(prompt), [], 0, SamplingParams(0.0), plain=True) for prompt in work["prompts"]]
        for sequence in live:
            engine.acquire(sequence)
            engine.begin_turn(sequence, work["new_tokens"])
        engine.extend(live)
        while todo := [sequence for sequence in live if sequence.finish is None]:
            engine.decode(todo)
        tokens = [list(engine.take(sequence).token_ids) for sequence in live]
        for sequence in live:
            engine.release(sequence)
        seconds.append(time.perf_counter() - began)
    return {"tokens": tokens, "seconds": seconds[1:], "version": "ours"}


def cut(tokens: list[int], stop: list[int]) -> list[int]:
    """What stands before the first stop token."""
    ends = [i for i, token in enumerate(tokens) if token in stop]
    return tokens[: min(ends, default=len(tokens))]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description="Greedy decoding against transformers and Tunix on this machine's CPU."
    )
    parser.add_argument("--quick", action="store_true", help="one repeat of fewer tokens")
    parser.add_argument("--json", type=Path, help="writes {row: {value, unit, aim, holds}}")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = make_work(Path(temporary), 1 if options.quick else 3, 32 if options.quick else NEW)
        file = Path(temporary) / "work.json"
        file.write_text(json.dumps(work))
        results = {
            "ours": generate(work),
            "transformers": run_peer("transformers", "transformers_generate.py", file),
            "tunix": run_peer("tunix", "tunix_generate.py", file),
        }
    speeds, ours = {}, [cut(row, work["stop"]) for row in results["ours"]["tokens"]]
    for name, result in results.items():
        theirs = [cut(row, work["stop"]) for row in result["tokens"]]
        differing = [i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b]
        if differing:
            sys.exit(f"{name} and ours sample other tokens in row {differing[0]}: the figures would not compare")
        speeds[name] = sum(map(len, ours)) / statistics.median(result["seconds"])
        print(
            f"{result['version']:<22} {speeds[name]:8.0f} tokens/s, seconds {[round(s, 2) for s in result['seconds']]}"
        )
    rows = {
        "transformers": Measured(
            speeds["ours"] / speeds["transformers"], "x", "at least 2", speeds["ours"] >= 2 * speeds["transformers"]
        ),
        "tunix": Measured(
            speeds["ours"] / speeds["tunix"], "x", "at least 1.5", speeds["ours"] >= 1.5 * speeds["tunix"]
        ),
    }
    report(rows, options.json)


if __name__ == "__main__":
    main()
