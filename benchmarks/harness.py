"""Shared by the benchmarks that compute: models, peers with the same weights, engines, time, memory, the machine."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks.peers import Peer, measuring
from benchmarks.stand_ins import qwen_vocabulary, tiny_tokenizer
from mmsearch_jax.data.chat import ChatRenderer
from mmsearch_jax.images.processing import ImageProcessor
from mmsearch_jax.models import hf
from mmsearch_jax.models.config import ModelConfig, TextConfig, VisionConfig
from mmsearch_jax.models.qwen2_5_vl import Qwen2_5_VL
from mmsearch_jax.models.tokenizer import load_tokenizer
from mmsearch_jax.planning.sizes import SIZES
from mmsearch_jax.rollout.engine import Engine
from mmsearch_jax.settings.rollout import EngineConfig

SMALL = ModelConfig(
    text=TextConfig(
        hidden_size=512,
        intermediate_size=1408,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=2,
        mrope_section=(8, 12, 12),
        tie_word_embeddings=True,
    ),
    vision=VisionConfig(
        depth=8, hidden_size=320, intermediate_size=864, num_heads=4, out_hidden_size=512, fullatt_block_indexes=(3, 7)
    ),
)
"""27 million parameters in the layers of the decoder, 10 million in the tower, the published vocabulary."""


def config_of(size: str) -> ModelConfig:
    """The model of a size; the small one is for a CPU."""
    return SMALL if size == "small" else SIZES[size]


def random_model(size: str) -> Qwen2_5_VL:
    """Random weights: float32 for the small model, bf16 for the published ones."""
    if size == "small":
        return Qwen2_5_VL(SMALL, rngs=nnx.Rngs(0))
    return random_bf16(SIZES[size])


def random_bf16(config: ModelConfig) -> Qwen2_5_VL:
    """A model whose weights are drawn one by one, in their final dtype. A GPU reports only its peak memory, and the peak of
    creating a model by nnx was above that of what is measured."""
    shapes = nnx.eval_shape(lambda: Qwen2_5_VL(config, rngs=nnx.Rngs(0), dtype=jnp.bfloat16, param_dtype=jnp.bfloat16))
    graph, state = nnx.split(shapes)
    leaves, tree = jax.tree.flatten(state)
    draw = jax.jit(lambda key, shape: 0.02 * jax.random.normal(key, shape, jnp.bfloat16), static_argnums=1)
    keys = jax.random.split(jax.random.key(0), len(leaves))
    drawn = [draw(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    return nnx.merge(graph, jax.tree.unflatten(tree, drawn))


def model_and_peer(
    size: str, script: str, work: dict[str, Any], folder: Path, alone: bool
) -> tuple[Qwen2_5_VL, Peer | None]:
    """A random model, and transformers with `work` in a folder that must stay (None to measure our side only).

    The small one's weights are given to the peer; a published one's shapes are, and the peer is done before JAX takes the GPU.
    """
    made = None
    work |= {"threads": os.cpu_count()}
    if size == "small":
        made = random_model(size)
        hf.save_pretrained(made, folder / "model")
        work["folder"] = str(folder / "model")
    else:
        work["config"] = config_of(size).to_hf()
    (folder / "work.json").write_text(json.dumps(work))
    peer = None if alone else Peer("transformers", script, folder / "work.json", at_once=size != "small")
    return made or random_model(size), peer


@functools.cache
def vocabulary() -> Any:
    """The published tokenizer if the `parity` extra is installed, else a small one of bytes, with which engines do the same
    work on the same shapes but sample other tokens."""
    if importlib.util.find_spec("dashscope") is None:
        return tiny_tokenizer.build()
    with tempfile.TemporaryDirectory() as folder:
        return load_tokenizer(qwen_vocabulary.write(Path(folder), qwen_vocabulary.ranks()))


def unsampled(tokenizer: Any, size: int) -> list[int]:
    """The token ids that an engine never samples: they encode no text and end no turn."""
    renderer = ChatRenderer(tokenizer)
    wordless = [i for i, text in enumerate(renderer.token_bytes) if not text and i not in renderer.stop_ids]
    return wordless + list(range(renderer.vocabulary_size, size))


def engine(model: Qwen2_5_VL, tokenizer: Any, sizes: EngineConfig) -> Engine:
    """An engine around a model and a tokenizer of `vocabulary`."""
    model.config = dataclasses.replace(model.config, image_token_id=ChatRenderer(tokenizer).image_pad)
    return Engine.of(model, tokenizer, ImageProcessor(), sizes)


def seconds(run: Callable[[], Any], repeats: int, prepare: Callable[[], Any] = measuring.nothing) -> list[float]:
    """Seconds of each of `repeats` calls until their arrays are ready, after one call that compiles; `prepare` is not
    counted."""
    return measuring.seconds(run, repeats, jax.block_until_ready, prepare)


def turns_and_repeats(options: argparse.Namespace, turns: int = 3) -> tuple[int, int]:
    """Turns of each side and repeats per turn: one turn if both do not fit into the memory of a GPU."""
    if options.quick:
        return 1, 2
    return (turns, 2) if options.model == "small" else (1, 5)


def both(
    turns: int, ours: Callable[[], dict[str, list[float]]], peer: Peer | None
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """The seconds of both sides by kind, measured in turns; empty for a peer that is not installed."""
    found = measuring.in_turns(turns, ours, *([peer.seconds] if peer else []))
    return found[0], found[1] if peer else {}


def memory(function: Any, *arguments: Any) -> int:
    """Bytes that a jitted function needs beside its arguments, from the compiled program. Resident memory depends on what an
    allocator has freed before (it varied between 0.5 and 1.1 GB for one program)."""
    needs = function.lower(*arguments).compile().memory_analysis()
    return needs.temp_size_in_bytes + needs.output_size_in_bytes


def same(name: str, ours: np.ndarray, theirs: Any, tolerance: float) -> float:
    """The largest difference of two sides' outputs.

    Raises:
      SystemExit: it is above the tolerance: their figures would not compare.
    """
    worst = float(np.abs(ours - np.asarray(theirs)).max())
    if not worst <= tolerance:
        raise SystemExit(
            f"{name}: the sides differ by {worst:.2g}, more than {tolerance:g}, so their times cannot be compared"
        )
    return worst


def machine() -> str:
    """One line about the machine: CPU, cores, memory, accelerator, versions."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", info.read_text()) if info.is_file() else None
    cpu = found.group(1) if found else platform.processor() or platform.machine()
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    device = jax.devices()[0]
    chip = "" if device.platform == "cpu" else f", {jax.device_count()} x {device.device_kind}"
    return (
        f"{cpu}, {os.cpu_count()} cores, {gib:.0f} GiB{chip}; {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}, jax {importlib.metadata.version('jax')}"
    )
