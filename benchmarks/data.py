"""The cost of the input side: images and tokens per second on one core, chips that a host can feed, how full packed rows are.

python -m benchmarks.data [--quick] [--json FILE]    (with the `parity` extra: also transformers with a DataLoader)

All times are CPU times, and both sides take turns, because the speed of a machine can change.
`benchmarks.data_memory` iterates a million rows.
"""

from __future__ import annotations

import functools
import importlib.util
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data_loaders import SHAPE, SIZE, conversations, cpu_seconds, ours, photographs, transformers_
from benchmarks.peers import measuring
from benchmarks.table import Measured, faster, report
from mmsearch_jax.core.command_line import Parser
from mmsearch_jax.data.batches import TokenBatch, TrainingSequence, pack
from mmsearch_jax.images.processing import ImageProcessor, ProcessedImage, load_image, smart_resize
from mmsearch_jax.learners.throughput import peak_flops, step_flops
from mmsearch_jax.models.config import ModelConfig
from mmsearch_jax.settings.learning import BatchShape

# Multi-turn conversations with search results: most have 1 to 4 thousand tokens, with a tail up to the limit.
LENGTH, ROWS, MEDIAN, SPREAD, SEQUENCES = 8192, 8, 2200, 0.6, 2000
# Photographs as sets of them have: long sides log-uniform between these, four shapes, made smaller where they are above the
# published configs' largest image (1,280 tokens, 5,120 patches), which is also the length of a row of patches. There are about
# as many such rows as the rows of tokens bring images for.
LONG_SIDES, SHAPES, MAX_PIXELS = (200, 2000), (1.0, 4 / 3, 3 / 2, 16 / 9), 1280 * 28 * 28
PATCH_ROWS, PATCHES = 11, 5120
# A host of the fastest TPU whose hosts are described: four chips, 208 hyperthreads. The 7B's LoRA step at this share of the
# chip's peak, which is an assumption (no such step has been timed) and a high one: a slower chip is fed more easily.
CHIP, MFU, HOST_CORES, HOST_CHIPS = "TPU v5p", 0.5, 104, 4
_COPIES = "The rest of the time is the copy of pixels between processes and into the batch."
PEER = importlib.util.find_spec("torch") is not None


def main() -> None:
    """Measures and prints."""
    parser = Parser(description="The input side: cost of images and tokens, packing.")
    parser.add_argument("--quick", action="store_true", help="under a minute")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    photos = photographs(8 if options.quick else 24)
    rows = image_rows(photos, 1 if options.quick else 5) | loader_rows(photos, *((1, 4) if options.quick else (3, 10)))
    rows |= packing_rows(SEQUENCES // 4 if options.quick else SEQUENCES)
    report(rows, options.json)


def image_rows(photos: list[bytes], turns: int) -> dict[str, Measured]:
    """One image from its JPEG to the arrays for the device, in this process."""
    processor = ImageProcessor()
    decoding = statistics.median(cpu_seconds(load_image, photos)[""])
    sides = [functools.partial(cpu_seconds, lambda image: processor(load_image(image)), photos)]
    if PEER:
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

        peer = Qwen2VLImageProcessorPil(min_pixels=processor.min_pixels, max_pixels=processor.max_pixels)
        sides.append(
            functools.partial(cpu_seconds, lambda image: peer(images=load_image(image), return_tensors="pt"), photos)
        )
    own, *theirs = (found[""] for found in measuring.in_turns(turns, *sides))
    cost = statistics.median(own)
    print(f"JPEGs of {SIZE[0]} x {SIZE[1]}: {1000 * cost:.1f} ms of CPU each, {1000 * decoding:.1f} of them decoding")
    rows = {"image, images/s per core": Measured(1 / cost, "", "", True)}
    for times in theirs:
        print(f"transformers' processor: {1000 * statistics.median(times):.1f} ms")
        rows["image, against transformers' processor"] = faster(own, times, 1)
    return rows


def loader_rows(photos: list[bytes], turns: int, batches: int) -> dict[str, Measured]:
    """Whole loaders with one worker, and how many chips ours can feed."""
    made, tokenizer, shipped = conversations(photos), vocabulary(), []

    def own_rate() -> dict[str, list[float]]:
        with tempfile.TemporaryDirectory() as folder:
            rate, batch = ours(made, tokenizer, Path(folder), batches)
        shipped.append(batch)
        return rate.by_cpu_second()

    sides = [own_rate] + [lambda: transformers_(made, tokenizer, 2 * batches).by_cpu_second()] * PEER
    own, *theirs = measuring.in_turns(turns, *sides)
    images, tokens = (statistics.median(own[kind]) for kind in ("images", "tokens"))
    rows = {
        "loader, images/s per core": Measured(images, "", "", True),
        "loader, tokens/s per core": Measured(tokens, "", "", True),
    }
    for found in theirs:
        print(f"transformers + DataLoader: {statistics.median(found['images']):.1f} images/s per core")
        each = [[1 / rate for rate in side["images"]] for side in (own, found)]
        rows["loader, against transformers + DataLoader"] = faster(*each, 4, _COPIES)
    if not PEER:
        print("transformers' loader: not measured, torch is not installed")
    batch = shipped[-1]
    assert batch.vision is not None
    pixels = batch.vision.patches.nbytes
    print(
        f"pixels of {SHAPE.images} images: {pixels / 1e6:.1f} MB as bytes, {8 * pixels / 1e6:.1f} as float32 with both frames"
    )
    chips = fed_chips(tokens, batch)
    rows[f"{CHIP} chips fed by {HOST_CORES} cores"] = Measured(chips, "", f"at least {HOST_CHIPS}", chips >= HOST_CHIPS)
    return rows


def fed_chips(rate: float, batch: TokenBatch) -> float:
    """Chips that all cores of a host keep busy with the 7B's LoRA step on such batches, at `rate` tokens a core and second."""
    peak = peak_flops(CHIP)
    assert peak is not None
    step = step_flops(ModelConfig(), batch, full=False, train_vision=False) / (peak * MFU)
    tokens = np.count_nonzero(batch.segment_ids)
    print(
        f"the 7B's LoRA step on {tokens} tokens: {step:.3f} s on one {CHIP} at {100 * MFU:.0f} % of its peak (assumed)"
    )
    return float(HOST_CORES * rate / (tokens / step))


def vocabulary() -> Any:
    """Qwen's tokenizer if the `parity` extra is installed, for the true number of tokens."""
    if importlib.util.find_spec("dashscope"):
        from benchmarks.stand_ins import qwen_vocabulary

        with tempfile.TemporaryDirectory() as folder:
            from mmsearch_jax.models.tokenizer import load_tokenizer

            return load_tokenizer(qwen_vocabulary.write(Path(folder), qwen_vocabulary.ranks()))
    from benchmarks.stand_ins import tiny_tokenizer

    return tiny_tokenizer.build()


def packing_rows(count: int) -> dict[str, Measured]:
    """How full rows of tokens are, and rows of patches, over streams of conversations without and with images."""
    rng = np.random.default_rng(0)
    lengths = rng.lognormal(np.log(MEDIAN), SPREAD, count).clip(200, LENGTH).astype(int)
    plain = packed([conversation(int(length)) for length in lengths], BatchShape(ROWS, LENGTH))
    share = 100 * statistics.mean(float(np.mean(batch.segment_ids > 0)) for batch in plain)
    sizes = [photograph_patches(rng) for _ in lengths]
    mixed = [conversation(max(int(length), size // 4 + 100), size) for length, size in zip(lengths, sizes, strict=True)]
    batches = list(packed(mixed, BatchShape(ROWS, LENGTH, PATCH_ROWS, PATCHES)))
    ids = [batch.vision.image_segment_ids for batch in batches if batch.vision is not None]
    patches = 100 * statistics.mean(float(np.mean(each > 0)) for each in ids)
    tokens = 100 * statistics.mean(float(np.mean(batch.segment_ids > 0)) for batch in batches)
    print(
        f"{count} conversations with an image each, into {ROWS} x {LENGTH} tokens and {PATCH_ROWS} x {PATCHES} patches: "
        f"{tokens:.1f} % of the room for tokens is full, {np.mean([each.max(axis=1).sum() for each in ids]):.1f} images a batch"
    )
    return {
        f"packing, {ROWS} x {LENGTH}, median {MEDIAN}": Measured(share, "%", "at least 95", share >= 95),
        f"patches, {PATCH_ROWS} x {PATCHES}, mixed photographs": Measured(patches, "%", "at least 90", patches >= 90),
        "patches, were every image a row of its own": Measured(100 * statistics.mean(sizes) / PATCHES, "%", "", True),
    }


def photograph_patches(rng: np.random.Generator) -> int:
    """Patches of a photograph of the mix."""
    long, shape = np.exp(rng.uniform(*np.log(LONG_SIDES))), rng.choice(SHAPES)
    height, width = smart_resize(round(long / shape), round(long), 28, 56 * 56, MAX_PIXELS)
    return height * width // 14**2


def conversation(length: int, patches: int = 0) -> TrainingSequence:
    """Tokens with an image at the start; the values do not matter, so a patch is one byte."""
    ids = np.zeros(length, np.int32)
    ids[: patches // 4] = 1
    images = [ProcessedImage(np.zeros((patches, 1), np.uint8), (1, 2, patches // 2))] if patches else []
    return TrainingSequence(ids, np.zeros((3, length), np.int32), np.ones(length, np.float32), images, 1)


def packed(sequences: Sequence[TrainingSequence], shape: BatchShape, lookahead: int = 2) -> Iterator[TokenBatch]:
    """Batches as the pipeline packs them, except at the end of the stream, where few candidates are left."""
    stream, waiting, held_over = iter(sequences), [], 0
    while True:
        while sum(map(len, waiting)) < lookahead * shape.rows * shape.length:
            if (sequence := next(stream, None)) is None:
                return
            waiting.append(sequence)
        made, left = pack(waiting, shape, held_over)
        yield made.batch
        waiting, held_over = [waiting[i] for i in left], len(left)


if __name__ == "__main__":
    main()
