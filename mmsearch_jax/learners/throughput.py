"""The FLOPs of a training step (counted by formula), MFU and peak memory.

Only operations that the method needs are counted: matrix products over real tokens and patches, and attention over pairs in the
same segment. Padding, norms and recomputation by remat are not counted. A product of [m, k] and [k, n] is 2 m k n FLOPs; a
backward pass has one product for the inputs and one for the weights, if these are trained (PaLM, arXiv 2204.02311, appendix B).
Both operands of attention's products depend on trained parameters, so their backward pass always has two.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from mmsearch_jax.data.batches import TokenBatch
from mmsearch_jax.distributed.chips import chip_of
from mmsearch_jax.models.config import ModelConfig, TextConfig, VisionConfig


def peak_flops(device_kind: str) -> float | None:
    """Dense bf16 FLOPs per second of a device (half a chip, if JAX shows two), or None if unknown (a CPU)."""
    chip = chip_of(device_kind)
    return None if chip is None else chip.flops / chip.devices


def step_flops(config: ModelConfig, batch: TokenBatch, *, full: bool, train_vision: bool, scorings: int = 0) -> float:
    """FLOPs of one training step on a batch.

    Args:
      batch: host arrays.
      full: the whole language model is trained; else only low-rank updates, whose own products are too few to count.
      train_vision: the vision tower is trained as well.
      scorings: number of additional forward passes (of a reference policy).
    """
    passes = (3 if full or train_vision else 2) + scorings
    if not full and train_vision:
        # Gradients flow through the whole language model, but its weights have none.
        passes -= 1
    segments = np.asarray(batch.segment_ids)
    text = passes * text_flops(config.text, segments)
    if not full:
        text += attention_flops(config.text, segments)
    vision = 0.0
    if batch.vision is not None:
        vision = vision_flops(config.vision, batch.vision.window_segment_ids, batch.vision.image_segment_ids)
    return text + ((3 if train_vision else 1) + scorings) * vision


def text_flops(config: TextConfig, segment_ids: np.ndarray) -> float:
    """FLOPs of one forward pass of the language model with its vocabulary projection; segment ids int [B, L]."""
    heads = config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
    weights = config.hidden_size * (2 * heads + 2 * keys + 3 * config.intermediate_size)
    tokens, _ = _tokens_and_pairs(segment_ids)
    head = config.hidden_size * config.vocab_size
    products = 2 * tokens * (config.num_hidden_layers * weights + head)
    return products + attention_flops(config, segment_ids)


def attention_flops(config: TextConfig, segment_ids: np.ndarray) -> float:
    """FLOPs of scores and values in one forward pass of the language model; segment ids int [B, L]."""
    tokens, pairs = _tokens_and_pairs(segment_ids)
    causal = (pairs + tokens) / 2
    return 4 * config.num_hidden_layers * causal * config.num_attention_heads * config.head_dim


def vision_flops(config: VisionConfig, window_ids: np.ndarray, image_ids: np.ndarray) -> float:
    """FLOPs of one forward pass of the vision tower; segment ids int [R, P]."""
    size = config.hidden_size
    joined = size * config.spatial_merge_size**2
    patches, whole_pairs = _tokens_and_pairs(np.asarray(image_ids))
    _, window_pairs = _tokens_and_pairs(np.asarray(window_ids))
    full = len(config.fullatt_block_indexes)
    weights = config.depth * size * (4 * size + 3 * config.intermediate_size) + config.patch_dim * size
    merger = joined * (joined + config.out_hidden_size) / config.spatial_merge_size**2
    attention = 4 * size * (full * whole_pairs + (config.depth - full) * window_pairs)
    return 2 * patches * (weights + merger) + attention


def utilisation(flops: float, seconds: float) -> dict[str, float]:
    """Metrics of a step: tflops_per_second of all chips together, mfu if the chip's peak is known, hbm_peak_gb of this
    process's fullest chip if the platform reports it."""
    metrics = {"tflops_per_second": flops / seconds / 1e12}
    peak = peak_flops(jax.devices()[0].device_kind)
    if peak is not None:
        metrics["mfu"] = flops / seconds / (peak * jax.device_count())
    used = [(device.memory_stats() or {}).get("peak_bytes_in_use", 0) for device in jax.local_devices()]
    if any(used):
        metrics["hbm_peak_gb"] = max(used) / 1e9
    return metrics


def _tokens_and_pairs(segment_ids: np.ndarray) -> tuple[float, float]:
    """Number of tokens, and of ordered pairs in the same segment; 0 is padding."""
    tokens = pairs = 0.0
    for row in segment_ids:
        counts: Any = np.bincount(row[row > 0])
        tokens += float(counts.sum())
        pairs += float((counts.astype(np.float64) ** 2).sum())
    return tokens, pairs
