"""Does the memory of the pipeline, or the time to read a record, grow with the size of the set?

    python -m benchmarks.data_memory [--rows 1000000] [--quick] [--json FILE]

Writes a synthetic ArrayRecord set of short conversations without images, reads one epoch of it through the pipeline (shuffled,
rendered, masked, packed) and prints the resident memory of the process at the start and at the end, and the time of a random
read over that in a set of a hundredth of the rows. Linux only.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tqdm

from benchmarks.stand_ins import tiny_tokenizer
from benchmarks.table import Measured, report
from mmsearch_jax.core.command_line import Parser
from mmsearch_jax.core.protocol import Answer, render_turn
from mmsearch_jax.data.chat import ChatRenderer
from mmsearch_jax.data.formats.array_record import ArrayRecordFile
from mmsearch_jax.data.pipeline import Pipeline, PipelineConfig
from mmsearch_jax.data.rows import ConversationTurn, Row
from mmsearch_jax.data.sequences import SequenceBuilder
from mmsearch_jax.data.storage import write_rows
from mmsearch_jax.images.processing import ImageProcessor
from mmsearch_jax.models.config import ModelConfig
from mmsearch_jax.settings.learning import BatchShape

# Buffers, caches and the pools of the allocator are full by then (measured: no growth after 40,000 rows).
_SETTLED = 50_000


def main() -> None:
    """Writes the set, iterates over it and prints its memory."""
    parser = Parser(description="Memory over an epoch of a large set.")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--quick", action="store_true", help="under a minute: 20,000 rows")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    count = 20_000 if options.quick else options.rows
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.array_record"
        write_rows(tqdm.tqdm(made(count), "write", count, unit="row"), path)
        print(f"{count} rows, {path.stat().st_size / 1e6:.0f} MB")
        whole, small = record_seconds(path), Path(folder) / "small.array_record"
        write_rows(made(count // 100), small)
        longer = whole / record_seconds(small)
        samples, seconds = iterate(path, count)
    start, end = samples[0], samples[-1]
    print(
        f"resident memory: {start / 1e6:.0f} MB after {min(_SETTLED, count // 2)} rows, at most {max(samples) / 1e6:.0f} MB, "
        f"{end / 1e6:.0f} MB at the end; {count / seconds:.0f} rows/s"
    )
    growth = 100 * (end / start - 1)
    print(f"one record at random: {1e6 * whole:.0f} us")
    report(
        {
            f"memory growth over {count} rows": Measured(growth, "%", "under 2", growth < 2),
            f"a record of {count}, over one of {count // 100}": Measured(longer, "x", "under 2", longer < 2),
        },
        options.json,
    )


def made(count: int) -> Iterator[Row]:
    """Rows with different texts."""
    for number in range(count):
        turns = (ConversationTurn(render_turn("I know.", Answer(f"answer {number}"))),)
        yield Row(f"r{number}", "", f"What is the capital of {number}?", (f"answer {number}",), "", False, turns=turns)


def record_seconds(path: Path) -> float:
    """Median seconds to read one random record."""
    file, rng, spent = ArrayRecordFile(path), np.random.default_rng(0), []
    for number in rng.integers(0, len(file), 2000).tolist():
        began = time.perf_counter()
        file[number]
        spent.append(time.perf_counter() - began)
    return statistics.median(spent)


def iterate(path: Path, count: int) -> tuple[list[int], float]:
    """Resident bytes during one epoch, after the buffers are full, and the seconds of the epoch."""
    renderer = ChatRenderer(tiny_tokenizer.build())
    builder = SequenceBuilder(renderer, ModelConfig(image_token_id=renderer.image_pad))
    config = PipelineConfig(BatchShape(rows=8, length=2048), prompt_style="short")
    began, samples, taken = time.monotonic(), [], 0
    with tqdm.tqdm(desc="iterate", total=count, unit="row") as bar:
        for step in Pipeline([path], config, builder, ImageProcessor()).steps():
            assert step.state is not None and not step.skipped
            bar.update(step.state["lanes"]["0"]["next"] - taken)
            taken = step.state["lanes"]["0"]["next"]
            if taken >= min(_SETTLED, count // 2):
                samples.append(_resident())
            if taken >= count:
                return samples, time.monotonic() - began
    raise AssertionError("the pipeline repeats without end")


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
