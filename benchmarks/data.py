"""What the input side costs: images a second on one core, and how full packed rows are.

python -m benchmarks.data            (prints one table; with torch installed, transformers' processor stands beside ours)
"""

from __future__ import annotations

import importlib.util
import io
import time
from collections.abc import Callable

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from mmsearch_jax.data.batches import BatchShape, TrainingSequence, pack
from mmsearch_jax.data.image_processing import ImageProcessor, load_image

SIZE, IMAGES, LENGTH, ROWS = (1024, 768), 8, 8192, 8
# Multi-turn conversations with search results: most of 1 to 4 thousand tokens, a tail up to the limit.
MEDIAN, SPREAD, SEQUENCES = 2200, 0.6, 2000


def pictures() -> list[bytes]:
    """JPEGs of smooth noise, about as costly to decode as photographs."""
    rng, encoded = np.random.default_rng(0), []
    for _ in range(IMAGES):
        coarse = Image.fromarray(rng.integers(0, 256, (96, 128, 3), dtype=np.uint8))
        buffer = io.BytesIO()
        coarse.resize(SIZE, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=88)
        encoded.append(buffer.getvalue())
    return encoded


def seconds_an_image(work: Callable[[bytes], object], encoded: list[bytes]) -> float:
    """CPU seconds (of all threads) an image, the best of three rounds."""
    work(encoded[0])
    rounds = []
    for _ in range(3):
        began = time.process_time()
        for image in encoded:
            work(image)
        rounds.append((time.process_time() - began) / len(encoded))
    return min(rounds)


def fill(held_over_first: bool, lookahead: int = 2) -> float:
    """Share of packed rows that holds tokens, over a whole stream of log-normal lengths."""
    lengths = np.random.default_rng(0).lognormal(np.log(MEDIAN), SPREAD, SEQUENCES).clip(200, LENGTH).astype(int)
    stream = (
        TrainingSequence(np.zeros(n, np.int32), np.zeros((3, n), np.int32), np.ones(n, np.float32)) for n in lengths
    )
    shape, waiting, shares = BatchShape(ROWS, LENGTH), [], []
    while True:
        held_over = len(waiting)
        while sum(map(len, waiting)) < lookahead * ROWS * LENGTH and (sequence := next(stream, None)) is not None:
            waiting.append(sequence)
        if sum(map(len, waiting)) < lookahead * ROWS * LENGTH:
            # The stream's end, where there is nothing left to choose from, says nothing of its middle.
            return float(np.mean(shares))
        packed, left = pack(waiting, shape, held_over if held_over_first else 0)
        shares.append(np.count_nonzero(packed.batch.segment_ids) / packed.batch.segment_ids.size)
        waiting = [waiting[i] for i in left]


def main() -> None:
    """Measures and prints."""
    encoded, processor = pictures(), ImageProcessor()
    table = Table("measure", "value", title=f"{IMAGES} JPEGs of {SIZE[0]} x {SIZE[1]}; CPU time of all threads")
    ours = seconds_an_image(lambda image: processor(load_image(image)), encoded)
    decoding = seconds_an_image(load_image, encoded)
    table.add_row("ours, decode to patches", f"{1 / ours:.1f} images/s per core ({1000 * ours:.0f} ms)")
    table.add_row("of which decoding", f"{1000 * decoding:.0f} ms")
    if importlib.util.find_spec("torch"):
        from transformers import Qwen2VLImageProcessor

        theirs = Qwen2VLImageProcessor(min_pixels=processor.min_pixels, max_pixels=processor.max_pixels)
        cost = seconds_an_image(lambda image: theirs(images=load_image(image), return_tensors="np"), encoded)
        table.add_row("transformers' processor", f"{1 / cost:.1f} images/s per core ({1000 * cost:.0f} ms)")
        table.add_row("ours against transformers'", f"{cost / ours:.2f} times")
    else:
        table.add_row("transformers' processor", "not measured: torch is not installed")
    for name, first in (("packing, held-over first (pipeline)", True), ("packing, longest first", False)):
        table.add_row(f"{name}, {ROWS} x {LENGTH}", f"{100 * fill(first):.1f} % full")
    Console().print(table)


if __name__ == "__main__":
    main()
