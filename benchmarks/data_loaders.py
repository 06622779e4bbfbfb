"""The two loaders that `benchmarks.data` compares, each with one worker process, on the same photographs and texts.

Ours does more: it masks, packs rows of tokens, and leaves nothing to pad. The peer is what a trainer around transformers does:
a torch DataLoader whose worker decodes, runs the image processor and the tokenizer, and whose batches are padded.
"""

from __future__ import annotations

import io
import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from mmsearch_jax.core.protocol import Answer, TextSearch, render_turn
from mmsearch_jax.data.batches import TokenBatch
from mmsearch_jax.data.chat import IMAGE_PAD, ChatRenderer
from mmsearch_jax.data.pipeline import Pipeline, PipelineConfig
from mmsearch_jax.data.rows import ConversationTurn, Row
from mmsearch_jax.data.sequences import SequenceBuilder
from mmsearch_jax.data.storage import write_rows
from mmsearch_jax.images.processing import ImageProcessor
from mmsearch_jax.models.config import ModelConfig
from mmsearch_jax.settings.learning import BatchShape

SIZE, SHAPE = (1024, 768), BatchShape(rows=2, length=8192, images=8, patches=4096)
_PHOTOS = Path(__file__).parent.parent / "assets" / "miniworld" / "photos"
_WARM_UP = 2


class Rate(NamedTuple):
    """The output of a loader, and the CPU seconds of its processes and of the consumer."""

    images: int
    tokens: int
    cpu_seconds: float

    def by_cpu_second(self) -> dict[str, list[float]]:
        """Images and tokens a second of CPU, as `measuring.in_turns` takes them."""
        return {"images": [self.images / self.cpu_seconds], "tokens": [self.tokens / self.cpu_seconds]}


def photographs(count: int) -> list[bytes]:
    """Real photographs as a camera's JPEG of SIZE would hold them (cropped, and enlarged from 440 pixels)."""
    encoded = []
    for path in sorted(_PHOTOS.glob("*.jpg"))[:count]:
        buffer = io.BytesIO()
        with Image.open(path) as photo:
            ImageOps.fit(photo.convert("RGB"), SIZE, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=88)
        encoded.append(buffer.getvalue())
    return encoded


def conversations(photos: Sequence[bytes]) -> list[Row]:
    """A search and an answer about each photograph, with some thousand characters of results."""
    rng, rows = np.random.default_rng(0), []
    words = ["the", "of", "old", "tower", "built", "stone", "river", "stands", "north", "which", "was", "war"]
    for number, photo in enumerate(photos):
        page = " ".join(rng.choice(words, int(rng.integers(500, 1500))))
        turns = (
            ConversationTurn(
                render_turn("I do not know it.", TextSearch("which tower")), f"<information>{page}</information>"
            ),
            ConversationTurn(render_turn("The page says it.", Answer("the old tower"))),
        )
        rows.append(Row(f"r{number}", photo, "What is this?", ("the old tower",), "", True, turns=turns))
    return rows


def ours(rows: Sequence[Row], tokenizer: Any, folder: Path, batches: int) -> tuple[Rate, TokenBatch]:
    """Batches of our pipeline from an ArrayRecord file, and the last batch."""
    write_rows(rows, folder / "rows.array_record")
    renderer = ChatRenderer(tokenizer)
    config = ModelConfig(image_token_id=renderer.image_pad)
    made = Pipeline(
        [folder / "rows.array_record"],
        PipelineConfig(SHAPE, num_workers=1),
        SequenceBuilder(renderer, config),
        ImageProcessor(),
    ).steps()
    batch = None

    def counted() -> Iterator[tuple[int, int]]:
        nonlocal batch
        for step in made:
            batch = step.batch
            assert batch.vision is not None and not step.skipped
            yield int(batch.vision.image_segment_ids.max(axis=1).sum()), int((batch.segment_ids > 0).sum())

    try:
        rate = _measured(counted(), batches)
    finally:
        made.close()
    assert batch is not None
    return rate, batch


def transformers_(rows: Sequence[Row], tokenizer: Any, batches: int) -> Rate:
    """Padded batches of four conversations from a torch DataLoader with transformers' processor."""
    import torch
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    limits = ImageProcessor()
    processor = Qwen2VLImageProcessorPil(min_pixels=limits.min_pixels, max_pixels=limits.max_pixels)

    class Conversations(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(rows) * 1000

        def __getitem__(self, number: int) -> dict[str, Any]:
            row = rows[number % len(rows)]
            image = Image.open(io.BytesIO(row.image)).convert("RGB")
            made = processor(images=image, return_tensors="pt")
            placeholders = IMAGE_PAD * int(made["image_grid_thw"].prod() // 4)
            said = "\n".join(turn.text + (turn.observation or "") for turn in row.turns)
            ids = tokenizer.encode(f"user\n{placeholders}{row.question}\nassistant\n{said}").ids
            return {"ids": torch.tensor(ids), "pixels": made["pixel_values"], "grid": made["image_grid_thw"]}

    def padded(items: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "ids": torch.nn.utils.rnn.pad_sequence([item["ids"] for item in items], batch_first=True, padding_value=-1),
            "pixels": torch.cat([item["pixels"] for item in items]),
            "grid": torch.cat([item["grid"] for item in items]),
        }

    torch.set_num_threads(1)
    loader = torch.utils.data.DataLoader(Conversations(), batch_size=4, num_workers=1, collate_fn=padded)
    return _measured(((len(batch["grid"]), int((batch["ids"] >= 0).sum())) for batch in loader), batches)


def cpu_seconds(work: Callable[[bytes], object], encoded: Sequence[bytes]) -> dict[str, list[float]]:
    """CPU seconds per image (of all threads) in this process, over all images once, after one that is not counted."""
    work(encoded[0])
    began = time.process_time()
    for image in encoded:
        work(image)
    return {"": [(time.process_time() - began) / len(encoded)]}


def _measured(counts: Iterator[tuple[int, int]], batches: int) -> Rate:
    # The worker is ahead by the same number of batches when the measurement begins and when it ends.
    for _ in itertools.islice(counts, _WARM_UP):
        pass
    began = _cpu_of_all()
    found = list(itertools.islice(counts, batches))
    return Rate(sum(images for images, _ in found), sum(tokens for _, tokens in found), _cpu_of_all() - began)


def _cpu_of_all() -> float:
    """CPU seconds of this process and its descendants so far, from /proc (Linux)."""
    parents, seconds = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            # It has just ended.
            continue
        process = int(stat.parent.name)
        parents[process] = int(fields[1])
        seconds[process] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    own = {os.getpid()}
    while more := {process for process, parent in parents.items() if parent in own} - own:
        own |= more
    return sum(seconds[process] for process in own)
