"""Shares of episodes by tool use, as in the paper's figures (DeepMMSearch-R1, sec. 4)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from mmsearch_jax.core.trajectory import SearchKind

PARTS = {
    "none": "no search",
    "text": "one text search",
    "multi_text": "several text searches",
    "whole_image": "whole image only",
    "crop": "crop only",
    "mixed": "image and text",
}
"""Kinds of tool use; each episode has exactly one."""


@dataclasses.dataclass(frozen=True)
class ToolUse:
    """One bar: shares of `PARTS` (they add up to 1) among `n` episodes."""

    label: str
    n: int
    shares: dict[str, float]


def way_of(tools: Sequence[str]) -> str:
    """The key in `PARTS` of an episode with these searches.

    >>> way_of([SearchKind.CROP, SearchKind.TEXT])
    'mixed'
    """
    image = [tool for tool in tools if tool != SearchKind.TEXT]
    texts = len(tools) - len(image)
    if image and texts:
        return "mixed"
    if image:
        return "crop" if SearchKind.CROP in image else "whole_image"
    return "none" if not texts else "text" if texts == 1 else "multi_text"


def tool_use(label: str, tools: Sequence[Sequence[str]]) -> ToolUse | None:
    """The bar of the episodes; None if there are no episodes."""
    if not tools:
        return None
    ways = [way_of(each) for each in tools]
    return ToolUse(label, len(ways), {part: ways.count(part) / len(ways) for part in PARTS})
