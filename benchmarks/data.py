"""What the input side costs: images and tokens a second on one core, chips that a host feeds, how full packed rows are.

python -m benchmarks.data [--quick] [--json FILE]    (with the `parity` extra, transformers and a DataLoader stand beside ours)

Everything is CPU time, so another job on the machine changes little. `benchmarks.data_memory` iterates a million rows.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data_loaders import SHAPE, SIZE, Rate, conversations, cpu_seconds, ours, photographs, transformers_
from benchmarks.table import Measured, report
from mmsearch_jax.data.batches import BatchShape, TokenBatch, TrainingSequence, pack
from mmsearch_jax.data.image_processing import ImageProcessor, ProcessedImage, load_image
from mmsearch_jax.learners.throughput import peak_flops, step_flops
from mmsearch_jax.models.config import ModelConfig

# Multi-turn conversations with search results: most of 1 to 4 thousand tokens, a tail up to the limit.
LENGTH, ROWS, MEDIAN, SPREAD, SEQUENCES = 8192, 8, 2200, 0.6, 2000
# Images of 200 x 200 to 1000 x 1000 pixels, areas log-uniform, as web images come; the batch has rows for so many.
PATCHES, SMALLEST, PATCH_ROWS = 5120, 204, 6
# A host of the fastest TPU whose hosts are described: four chips, 208 hyperthreads. The 7B's LoRA step at this share of the
# chip's peak, which is an assumption (no such step has been timed) and a high one: a slower chip is fed more easily.
CHIP, MFU, HOST_CORES, HOST_CHIPS = "TPU v5p", 0.5, 104, 4
PEER = importlib.util.find_spec("torch") is not None


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="The input side: cost of images and tokens, packing.")
    parser.add_argument("--quick", action="store_true", help="under a minute")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    photos = photographs(8 if options.quick else 24)
    rows = image_rows(photos) | loader_rows(photos, 4 if options.quick else 20)
    count = SEQUENCES // 4 if options.quick else SEQUENCES
    share = 100 * fill(count)[0]
    rows[f"packing, {ROWS} x {LENGTH}, median {MEDIAN}"] = Measured(share, "%", "at least 95", share >= 95)
    tokens, patches, alone = (100 * part for part in fill(count, PATCH_ROWS))
    print(
        f"with an image each: rows {tokens:.1f} % full, rows of patches {patches:.1f} % (one image in each: {alone:.1f} %)"
    )
    rows[f"packing, patches, {PATCH_ROWS} x {PATCHES}"] = Measured(patches, "%", "at least 80", patches >= 80)
    report(rows, options.json)


def image_rows(photos: list[bytes]) -> dict[str, Measured]:
    """One image from its JPEG to what is shipped, in this process."""
    processor = ImageProcessor()
    cost = cpu_seconds(lambda image: processor(load_image(image)), photos)
    decoding = cpu_seconds(load_image, photos)
    print(f"JPEGs of {SIZE[0]} x {SIZE[1]}: {1000 * cost:.1f} ms of CPU each, {1000 * decoding:.1f} of them decoding")
    if not PEER:
        return {"image, images/s per core": Measured(1 / cost, "", "", True)}
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    peer = Qwen2VLImageProcessorPil(min_pixels=processor.min_pixels, max_pixels=processor.max_pixels)
    theirs = cpu_seconds(lambda image: peer(images=load_image(image), return_tensors="pt"), photos)
    print(f"transformers' processor: {1000 * theirs:.1f} ms")
    return {
        "image, images/s per core": Measured(1 / cost, "", "", True),
        "image, against transformers' processor": Measured(theirs / cost, "x", "", True),
    }


def loader_rows(photos: list[bytes], batches: int) -> dict[str, Measured]:
    """Whole loaders with one worker, and what ours feeds."""
    made, tokenizer = conversations(photos), vocabulary()
    with tempfile.TemporaryDirectory() as folder:
        own, batch = ours(made, tokenizer, Path(folder), batches)
    rows = {
        "loader, images/s per core": Measured(own.images / own.cpu_seconds, "", "", True),
        "loader, tokens/s per core": Measured(own.tokens / own.cpu_seconds, "", "", True),
    }
    if PEER:
        theirs = transformers_(made, tokenizer, 2 * batches)
        print(f"transformers + DataLoader: {theirs.images / theirs.cpu_seconds:.1f} images/s per core")
        ratio = own.images / own.cpu_seconds / (theirs.images / theirs.cpu_seconds)
        rows["loader, against transformers + DataLoader"] = Measured(ratio, "x", "at least 4", ratio >= 4)
    else:
        print("transformers' loader: not measured, torch is not installed")
    assert batch.vision is not None
    shipped = batch.vision.patches.nbytes
    print(
        f"pixels of {SHAPE.images} images: {shipped / 1e6:.1f} MB as bytes, {8 * shipped / 1e6:.1f} as float32 with both frames"
    )
    chips = fed_chips(own, batch)
    rows[f"{CHIP} chips fed by {HOST_CORES} cores"] = Measured(chips, "", f"at least {HOST_CHIPS}", chips >= HOST_CHIPS)
    return rows


def fed_chips(rate: Rate, batch: TokenBatch) -> float:
    """Chips that all cores of a host keep busy with the 7B's LoRA step on such batches."""
    peak = peak_flops(CHIP)
    assert peak is not None
    step = step_flops(ModelConfig(), batch, full=False, train_vision=False) / (peak * MFU)
    tokens = np.count_nonzero(batch.segment_ids)
    print(
        f"the 7B's LoRA step on {tokens} tokens: {step:.3f} s on one {CHIP} at {100 * MFU:.0f} % of its peak (assumed)"
    )
    return float(HOST_CORES * (rate.tokens / rate.cpu_seconds) / (tokens / step))


def vocabulary() -> Any:
    """Qwen's own where the `parity` extra is installed, for a true number of tokens."""
    if importlib.util.find_spec("dashscope"):
        from tests.parity import qwen_vocabulary

        with tempfile.TemporaryDirectory() as folder:
            from mmsearch_jax.models.tokenizer import load_tokenizer

            return load_tokenizer(qwen_vocabulary.write(Path(folder), qwen_vocabulary.ranks()))
    from tests import tiny_tokenizer

    return tiny_tokenizer.build()


def fill(count: int, patch_rows: int = 0, lookahead: int = 2) -> tuple[float, float, float]:
    """Shares of rows that hold tokens, of rows of patches that hold patches, and of such rows with one image in each, over a
    whole stream of log-normal lengths, as the pipeline packs; with an image each where there are rows of patches."""
    rng = np.random.default_rng(0)
    lengths = rng.lognormal(np.log(MEDIAN), SPREAD, count).clip(200, LENGTH - PATCHES // 4 - 1).astype(int)
    sizes = 4 * np.exp(rng.uniform(np.log(SMALLEST / 4), np.log(PATCHES / 4), count)).astype(int)
    stream = map(_sequence, lengths, sizes if patch_rows else np.zeros(count, int))
    shape, waiting, shares = BatchShape(ROWS, LENGTH, patch_rows, PATCHES), [], []
    while True:
        held_over = len(waiting)
        while sum(map(len, waiting)) < lookahead * ROWS * LENGTH and (sequence := next(stream, None)) is not None:
            waiting.append(sequence)
        if sum(map(len, waiting)) < lookahead * ROWS * LENGTH:
            # The stream's end, where there is nothing left to choose from, says nothing of its middle.
            tokens, patches = (statistics.mean(part) for part in zip(*shares, strict=True))
            return tokens, patches, float(sizes.mean() / PATCHES)
        packed, left = pack(waiting, shape, held_over)
        vision = packed.batch.vision
        filled = float(np.mean(vision.image_segment_ids > 0)) if vision is not None else 0.0
        shares.append((float(np.mean(packed.batch.segment_ids > 0)), filled))
        waiting = [waiting[i] for i in left]


def _sequence(length: int, patches: int) -> TrainingSequence:
    """Text, before which an image of so many patches stands."""
    images = [ProcessedImage(np.broadcast_to(np.uint8(0), (patches, 1)), (1, 2, patches // 2))] if patches else []
    ids = np.concatenate([np.full(patches // 4, 9), np.zeros(length)]).astype(np.int32)
    positions, weights = np.zeros((3, len(ids)), np.int32), np.ones(len(ids), np.float32)
    return TrainingSequence(ids, positions, weights, images, image_token_id=9)


if __name__ == "__main__":
    main()
