"""The images of a record of LLaMA-Factory, LLaVA, verl and their kin, counted against the image marks of its prompt.

A record whose prompt has another number of image marks than it has images, or that holds an image where nobody reads it, is
refused: converted all the same, its question would be about images that the policy does not see.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from mmsearch_jax.core.errors import DataError
from mmsearch_jax.data.convert import fields
from mmsearch_jax.data.found_images import found_images, is_encoded

_KEYS = ("images", "image", "image_urls")
_OTHER_MEDIA = ("videos", "video", "audios", "audio")
# Our grammar has a tag <img>, so a bare one is none of these.
_OTHER_MARK = re.compile(
    r"<\|?(?:image|picture|video|audio)(?:[ _-]?(?:\d+|pad|token|placeholder|here|start|end))?\|?>"
    r"|<img[ _-]?\d+>|<img>[^<>\n]+</img>|<\|vision_(?:start|end)\|>",
    re.IGNORECASE,
)


class Said(NamedTuple):
    """A message: its text, with a mark for each image in it, and the images that it holds itself."""

    text: str
    images: tuple[str | bytes, ...] = ()


def said(content: Any, field: str) -> Said:
    """A message's content: a string, or a list of parts as in chat completions.

    Raises:
      DataError: it has another form or no text, or a part is neither text nor an image.
    """
    if not isinstance(content, list):
        return Said(fields.text({field: content}, field))
    written, held = [], []
    for part in content:
        part = {"text": part} if isinstance(part, str) else part
        if not isinstance(part, Mapping):
            raise DataError(f"{field}: a part must be an object")
        kind = part.get("type") or "text"
        if kind in ("text", "input_text"):
            written.append(part.get("text") or "")
        elif kind in ("image", "image_url", "input_image"):
            written.append(fields.IMAGE_MARK)
            value = next((part[key] for key in ("image", "image_url", "bytes", "path", "url") if part.get(key)), None)
            held += [] if value is None else [fields.image(value, field)]
        else:
            raise DataError(f"{field}: a part is {str(kind)[:40]!r}, but rows hold text and images only")
    if not all(isinstance(text, str) for text in written):
        raise DataError(f"{field}: the text of a part must be a string")
    return Said(fields.text({field: "".join(written)}, field), tuple(held))


def counted(record: Mapping[str, Any], asked: Said, others: Sequence[Said], read: Collection[str]) -> tuple[Any, ...]:
    """The images of a record, one for each mark of the question if it has marks.

    Args:
      asked: the question.
      others: all other messages, which must have no images.
      read: the fields whose content is read otherwise.

    Raises:
      DataError: the marks and the images differ in number, a mark is another project's, or an image is somewhere else.
    """
    if media := [key for key in _OTHER_MEDIA if record.get(key)]:
        raise DataError(f"{media[0]}: rows hold text and images only")
    for other in others:
        fields.refuse_marks(other.text)
    if odd := _OTHER_MARK.search(asked.text.replace(fields.IMAGE_MARK, "")):
        raise DataError(f"text: contains {odd[0]!r}, which is no image mark: write {fields.IMAGE_MARK} for an image")
    images = _held(record) or asked.images
    if asked.images and asked.images != images:
        raise DataError("images: the prompt holds others than the record: keep one of the two")
    # Without any mark the images are shown before the question, where rows have them, too.
    if (marks := asked.text.count(fields.IMAGE_MARK)) and marks != len(images):
        raise DataError(f"images: the prompt has {marks} image marks, but there are {len(images)} images")
    _refuse_unread(record, images, read)
    return images


def _held(record: Mapping[str, Any]) -> tuple[str | bytes, ...]:
    """The images under the usual names; `image_urls` says where those of `images` came from."""
    images, single = fields.images(record, "images"), fields.images(record, "image")
    if images and single and images != single:
        raise DataError("image: holds other images than 'images': keep one of the two")
    return images or single or fields.images(record, "image_urls")


def _refuse_unread(record: Mapping[str, Any], images: tuple[str | bytes, ...], read: Collection[str]) -> None:
    known = [found for key in _KEYS for found in found_images(record.get(key))] + list(images)
    names = {os.path.basename(found) for found in known if isinstance(found, str)}
    for key, value in record.items():
        if key in _KEYS or key in read:
            continue
        # Inside other data, the name of a file says where an image came from if the record has its images.
        nested = isinstance(value, Mapping)
        for found in found_images(value):
            same = found in known or (isinstance(found, str) and os.path.basename(found) in names)
            if not same and (is_encoded(found) or not nested or not images):
                raise DataError(f"{key}: holds an image that is not in 'images': add it there, or remove {key!r}")
