"""M-RoPE positions: three numbers per token (time, height, width) for text and images in one sequence.

Follows transformers' `get_rope_index` for Qwen2.5-VL. A text token increases all three positions by one. An image's tokens
are numbered by their place in its merged grid, and the next text token starts behind the larger side of that grid.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, Int32

from mmsearch_jax.images.vision_inputs import image_runs
from mmsearch_jax.models.config import ModelConfig


def mrope_positions(
    token_ids: Sequence[int] | Int[np.ndarray, "L"],
    image_grids: Sequence[tuple[int, int, int]],
    config: ModelConfig,
    start: int = 0,
) -> tuple[Int32[np.ndarray, "3 L"], int]:
    """Positions of consecutive tokens whose first position is `start`.

    Args:
      image_grids: (t, h, w) in patches of each image among the tokens, in order.

    Returns:
      int32 [3, L], and the position of the sequence's next token.

    Raises:
      DataError: the numbers of placeholders and images differ (see `image_runs`).
    """
    ids = np.asarray(token_ids)
    merge = config.vision.spatial_merge_size
    positions = np.empty((3, len(ids)), np.int32)
    sizes = [frames * (height // merge) * (width // merge) for frames, height, width in image_grids]
    runs = image_runs(ids, config.image_token_id, sizes)
    place, position = 0, start
    for first, count, (frames, height, width) in zip(runs, sizes, image_grids, strict=True):
        rows, columns = height // merge, width // merge
        text = first - place
        positions[:, place:first] = np.arange(position, position + text)
        position += text
        grid = np.indices((frames, rows, columns)).reshape(3, -1)
        positions[:, first : first + count] = grid + position
        position += max(rows, columns)
        place = first + count
    rest = len(ids) - place
    positions[:, place:] = np.arange(position, position + rest)
    return positions, position + rest
