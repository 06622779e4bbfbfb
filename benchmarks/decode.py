"""Tokens per second of our engine against transformers' `generate` and Tunix's sampler: python -m benchmarks.decode.

    python -m benchmarks.decode --model 7b     on a GPU: bf16, random weights, against transformers alone

The same random weights (8 layers of 512, the true vocabulary), the same prompts, greedy, float32, the same threads; the tokens
must be equal. Each peer runs in its own environment, which is created on first use. On a GPU each side has its own weights, and
only the number of tokens is checked.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import harness
from benchmarks.card import copy_bytes
from benchmarks.decode_limit import BF16, bytes_of_a_step
from benchmarks.peers import Peer, measuring, save_text_alone
from benchmarks.table import Measured, command_line, faster, report
from mmsearch_jax.data.chat import ChatRenderer
from mmsearch_jax.rollout.engine import Engine
from mmsearch_jax.rollout.sampling import SamplingParams
from mmsearch_jax.rollout.sequence import LiveSequence
from mmsearch_jax.settings.rollout import EngineConfig

BATCH, PROMPT, NEW = 16, (32, 64), 128
_MEMORY = (
    "Every implementation must read all weights in each step. The closer a step is to the memory's bandwidth (last "
    "row), the closer all ratios are to 1."
)


def main() -> None:
    """Prints the table."""
    parser = command_line("Greedy decoding against transformers and Tunix.", "one turn of fewer tokens", sizes=True)
    options = parser.parse_args()
    small, new_tokens = options.model == "small", 32 if options.quick else NEW
    turns, repeats = harness.turns_and_repeats(options)
    tokenizer, config = harness.vocabulary(), harness.config_of(options.model)
    rng = np.random.default_rng(0)
    stop = sorted(ChatRenderer(tokenizer).stop_ids)
    work: dict[str, Any] = {
        "prompts": [rng.integers(100, 100_000, size=int(rng.integers(*PROMPT))).tolist() for _ in range(BATCH)],
        "new_tokens": new_tokens,
        "repeats": repeats,
        "pad": stop[0],
        "stop": stop,
        "suppress": harness.unsampled(tokenizer, config.text.vocab_size),
        "text": dataclasses.asdict(config.text),
    }
    sizes = EngineConfig(
        num_slots=BATCH,
        max_length=PROMPT[1] + new_tokens,
        extend_rows=(BATCH,),
        extend_buckets=(PROMPT[1],),
        decode_rows=(),
        length_buckets=(),
        decode_steps=new_tokens,
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if not small:
            # No row may end early: the weights differ, and so do the sampled tokens.
            work |= {"suppress": [*work["suppress"], *stop]}
        model, found = harness.model_and_peer(options.model, "transformers_generate.py", work, folder, options.alone)
        peers = {"transformers": found} if found else {}
        if small and not options.alone:
            save_text_alone(model, folder / "text")
            (folder / "tunix.json").write_text(json.dumps(work | {"text_folder": str(folder / "text")}))
            peers["Tunix"] = Peer("tunix", "tunix_generate.py", folder / "tunix.json")
        engine = harness.engine(model, tokenizer, sizes)
        size = 2**27 if small else 2**30
        bandwidths, own, *others = measuring.in_turns(
            turns,
            lambda: {"": [copy_bytes(size)]},
            lambda: {"": generate(engine, work)[1]},
            *(peer.seconds for peer in peers.values()),
        )
    ours = [cut(row, stop) for row in generate(engine, work | {"repeats": 0})[0]]
    speed = sum(map(len, ours)) / statistics.median(own[""])
    rows = {"decoding, tokens/s": Measured(speed, "", "", True)}
    for (name, peer), times in zip(peers.items(), others, strict=True):
        theirs = [cut(row, stop) for row in peer.found["tokens"]]
        if small:
            differing = [i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b]
            if differing:
                sys.exit(
                    f"{name} and ours sample different tokens in row {differing[0]}, so the figures cannot be compared"
                )
        speed = sum(map(len, theirs)) / statistics.median(times[""])
        print(f"{peer.found['version']:<22} {speed:8.0f} tokens/s, seconds {[round(s, 2) for s in times['']]}")
        assert small or {len(row) for row in theirs} == {new_tokens}, "the peer left tokens out"
        each = [[s / sum(map(len, made)) for s in side[""]] for side, made in ((own, ours), (times, theirs))]
        rows[f"decoding, {name}"] = faster(*each, 2 if name == "transformers" else 1.5, _MEMORY)
    step = statistics.median(own[""]) / new_tokens
    moved = bytes_of_a_step(config, BATCH, PROMPT[1] + new_tokens // 2, 4 if small else BF16)
    share = 100 * moved / step / statistics.median(bandwidths[""])
    rows["decoding, of a copy's bandwidth"] = Measured(share, "%", "", True)
    report(rows, options.json)


def generate(engine: Engine, work: dict[str, Any]) -> tuple[list[list[int]], list[float]]:
    """The tokens that our engine samples, and the seconds of each repeat after one that compiles."""
    seconds, tokens = [], []
    for _ in range(work["repeats"] + 1):
        began = time.perf_counter()
        # The same prompts can be used again: a prefix is freed with its sequence.
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
    return tokens, seconds[1:]


def cut(tokens: list[int], stop: list[int]) -> list[int]:
    """The tokens before the first stop token."""
    ends = [i for i, token in enumerate(tokens) if token in stop]
    return tokens[: min(ends, default=len(tokens))]


if __name__ == "__main__":
    main()
