"""The one place that judges whether a row can be played: `data validate`, SFT, GRPO and evaluation ask it before using a row.

What makes a row unusable depends on the use: the policy's image processor, how many images are shown, and how long a prompt may
be. `Use` says that; `why_unusable` gives the reason. It reads headers and counts tokens, or also decodes the pixels with the
policy's own decoder. Loads no JAX.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import io
from collections.abc import Callable, Collection, Sequence

from PIL import Image, UnidentifiedImageError

from mmsearch_jax.core.characters import brief_name
from mmsearch_jax.core.errors import DataError, ImageError
from mmsearch_jax.core.protocol import direct_prompt, first_turn_prompt
from mmsearch_jax.data.chat import ChatRenderer
from mmsearch_jax.data.rows import Row, check_file, read_image
from mmsearch_jax.images import image_urls
from mmsearch_jax.images.processing import ImageProcessor, load_image
from mmsearch_jax.settings.learning import BatchShape
from mmsearch_jax.settings.rollout import EpisodeConfig

_READERS = 16
"""Number of rows that are judged in parallel: most of the time is spent waiting for files and URLs."""


@dataclasses.dataclass(frozen=True)
class Use:
    """What rows are used for.

    Attributes:
      processor: the policy's; a policy that is not known is judged as one of the published checkpoints.
      max_images: how many of a row's images are shown; None: all.
      prompt_tokens: number of tokens of a row's prompt, given the number of tokens of each of its images; None: not counted.
      max_prompt_tokens: the most tokens of a prompt.
      max_patches: the most patches of an image; None: any number.
    """

    processor: ImageProcessor = ImageProcessor()
    max_images: int | None = None
    prompt_tokens: Callable[[Row, Sequence[int]], int] | None = None
    max_prompt_tokens: int = 0
    max_patches: int | None = None


EPISODE = Use(max_images=1)
"""An episode of a policy whose processor and tokenizer are not known."""


def learnable_episodes(
    processor: ImageProcessor, renderer: ChatRenderer, rules: EpisodeConfig, batch: BatchShape
) -> Use:
    """Episodes that are learnt from: the prompt must leave room for a turn, and fit into a row of the learner's batch."""
    make = direct_prompt if rules.mode == "direct" else first_turn_prompt

    def prompt_tokens(row: Row, counts: Sequence[int]) -> int:
        return len(renderer.prompt_ids(make(row.question, rules.prompt_style), counts))

    return Use(
        processor,
        max_images=1,
        prompt_tokens=prompt_tokens,
        max_prompt_tokens=min(rules.max_trajectory_tokens, batch.length) - 1,
        max_patches=batch.patches if batch.images else 0,
    )


def why_unusable(row: Row, use: Use = Use(), *, decode: bool = True) -> str | None:
    """The reason why a row cannot be used, as "field: reason"; None if it can.

    Args:
      decode: decode the pixels, and fetch images that are given by a URL. Without it, only headers of files and embedded
        images are read.
    """
    if isinstance(row.image, bytes) and not row.image:
        return "image: it is empty (0 bytes)"
    if use.max_images is not None and len(row.images) > use.max_images:
        return f"more_images: the row has {len(row.images)} images, but an episode shows {use.max_images}"
    counts: list[int] = []
    for number, image in enumerate(row.images):
        field = "image" if number == 0 else f"more_images[{number - 1}]"
        try:
            size = image_size(image, decode=decode)
            grid = use.processor.grid(*size) if size else None
        except ImageError as error:
            return f"{field}: {error}"
        if grid is None:
            continue
        patches = grid[0] * grid[1] * grid[2]
        if use.max_patches is not None and patches > use.max_patches:
            return f"{field}: it has {patches} patches, but the learner's batch has room for {use.max_patches} an image"
        counts.append(use.processor.num_tokens(grid))
    if use.prompt_tokens is not None:
        tokens = use.prompt_tokens(row, counts)
        if tokens > use.max_prompt_tokens:
            return f"question: the prompt has {tokens} tokens with its images, at most {use.max_prompt_tokens} fit"
    return None


def why_all_unusable(
    rows: Sequence[Row], use: Use, *, decode: Callable[[Row], bool] = lambda row: True
) -> list[str | None]:
    """`why_unusable` of each row, several at a time.

    Args:
      decode: whether a row's pixels are decoded.
    """
    with concurrent.futures.ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(lambda row: why_unusable(row, use, decode=decode(row)), rows))


def image_size(image: str | bytes, *, decode: bool) -> tuple[int, int] | None:
    """Width and height in pixels of a row's image; None for a URL that is not fetched.

    Args:
      decode: decode the pixels; otherwise the header's size, before a rotation by EXIF.

    Raises:
      ImageError: it is missing, not a file, not an image, too large to decode safely, or (with `decode`) damaged.
    """
    if isinstance(image, str) and not image.startswith(image_urls.SCHEMES):
        check_file(image)
    elif isinstance(image, str) and not decode:
        return None
    if decode:
        return load_image(image).size
    try:
        with Image.open(io.BytesIO(image) if isinstance(image, bytes) else image) as opened:
            return opened.size
    except UnidentifiedImageError as error:
        raise ImageError(f"{_name(image)} is not an image that Pillow can read: convert it to JPEG or PNG") from error
    # Pillow's readers of headers raise almost anything if one is wrong.
    except Exception as error:
        raise ImageError(f"{_name(image)} is damaged or not an image ({error}): replace the file") from error


def _name(image: str | bytes) -> str:
    return "the image" if isinstance(image, bytes) else brief_name(image)


def shown_image(row: Row) -> bytes:
    """The encoded image that an episode shows; b"" if the row has none.

    Raises:
      ImageError: it cannot be read.
    """
    if not row.image:
        return b""
    return read_image(row.image)


def check_ids(rows: Collection[Row], where: str) -> None:
    """Checks that no two rows have the same id, by which images and answers are found.

    Raises:
      DataError: two have; names the id.
    """
    seen: set[str] = set()
    for row in rows:
        if row.id in seen:
            raise DataError(f"{where}: two rows have the id '{row.id}': give each row its own")
        seen.add(row.id)
