"""The vision tower over images of mixed sizes against transformers': python -m benchmarks.vision [--quick] [--json FILE].

    python -m benchmarks.vision --model 7b     on a GPU: the published tower in bf16 with random weights

Photographs of 64 to 1,024 tokens (log-uniform) and the usual aspect ratios: ours by the engine's image cache, a few rows per
call, each padded to the bucket of the longest image, features copied to the host; transformers in one call, with its images
concatenated. Equal weights, float32, equal threads; the features must agree.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from flax import nnx

from benchmarks import harness
from benchmarks.table import Measured, command_line, faster, report
from mmsearch_jax.images.processing import ImageProcessor, ProcessedImage
from mmsearch_jax.images.vision_inputs import VisionInputs
from mmsearch_jax.learners.throughput import vision_flops
from mmsearch_jax.models.vision import model_input
from mmsearch_jax.rollout.images import ImageCache
from mmsearch_jax.rollout.sequence import PreparedImage
from mmsearch_jax.settings.rollout import EngineConfig

TOKENS, ASPECTS, ROWS, TOLERANCE = (64, 1024), (0.56, 0.75, 1.0, 1.33, 1.78), 4, 1e-3

WHY = (
    "On a CPU, XLA's matrix products of the tower's shapes are slower than torch's (first table; the last hot spot, "
    "below), and the small products of windows run on one core. torch's attention is one fused kernel."
)


def main() -> None:
    """Runs both sides and prints the ratio."""
    parser = command_line("The vision tower against torch.", "a third of the images", sizes=True)
    options = parser.parse_args()
    images = photographs(np.random.default_rng(0), 6 if options.quick else 16)
    patches, (turns, repeats) = sum(len(image.patches) for image in images), harness.turns_and_repeats(options)
    prepared = [PreparedImage(str(i), image, image.grid, len(image.patches) // 4) for i, image in enumerate(images)]
    encode = nnx.jit(lambda model, vision: model.encode_images(vision))
    calls: list[VisionInputs] = []

    def counted(vision: VisionInputs) -> jax.Array:
        calls.append(vision)
        return encode(model, vision)

    def run() -> None:
        calls.clear()
        for image in prepared:
            image.features = None
        cache.encode_missing(prepared, counted)

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        pixels = np.concatenate([model_input(image.patches, 2) for image in images])
        np.savez(folder / "images.npz", pixels=pixels, grids=np.array([image.grid for image in images]))
        work = {"images": str(folder / "images.npz"), "features": str(folder / "features.npy"), "repeats": repeats}
        model, peer = harness.model_and_peer(options.model, "transformers_vision.py", work, folder, options.alone)
        cache = ImageCache(ImageProcessor(), model.config.vision, EngineConfig(extend_rows=(ROWS,)))
        times, others = harness.both(turns, lambda: {"": harness.seconds(run, repeats)}, peer)
        theirs = None if peer is None else np.load(work["features"])
    median = statistics.median(times[""])
    fill = 100 * patches / sum(call.image_segment_ids.size for call in calls)
    print(
        f"ours: {len(images) / median:.1f} images/s, {patches / median:.0f} patches/s; {fill:.0f} % of its rows are patches"
    )
    flops = sum(vision_flops(model.config.vision, call.window_segment_ids, call.image_segment_ids) for call in calls)
    table = {
        "vision, patches/s": Measured(patches / median, "", "", True),
        "vision": Measured(flops / median / 1e12, "TFLOP/s", "", True),
    }
    if peer is not None and theirs is not None:
        assert peer.found["patches"] == patches, "the peer encoded another number of patches"
        print(f"{peer.found['version']}: {patches / statistics.median(others['']):.0f} patches/s")
        if options.model == "small":
            own = np.concatenate([image.features for image in prepared if image.features is not None])
            print(f"largest difference of {own.size} features: {harness.same('features', own, theirs, TOLERANCE):.1e}")
        table["vision, mixed sizes"] = faster(times[""], others[""], 1, WHY)
    report(table, options.json)


def photographs(rng: np.random.Generator, count: int) -> Sequence[ProcessedImage]:
    """Random pixels in grids of mixed sizes."""
    made = []
    for _ in range(count):
        tokens = np.exp(rng.uniform(*np.log(TOKENS)))
        aspect = float(rng.choice(ASPECTS))
        height, width = (2 * max(2, round((tokens * side) ** 0.5)) for side in (1 / aspect, aspect))
        made.append(ProcessedImage(rng.integers(0, 256, (height * width, 588), dtype=np.uint8), (1, height, width)))
    return made


if __name__ == "__main__":
    main()
