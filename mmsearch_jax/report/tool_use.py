"""Shares of episodes by the tools that they used: the paper's figures (DeepMMSearch-R1, sec. 4) for a run of one's own."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

PARTS = {
    "none": "no search",
    "text": "one text search",
    "multi_text": "several text searches",
    "whole_image": "whole image only",
    "crop": "crop only",
    "mixed": "image and text",
}
"""Ways to use tools; each episode is in one."""


@dataclasses.dataclass(frozen=True)
class ToolUse:
    """One bar: shares of `PARTS` (they add up to 1) among `n` episodes."""

    label: str
    n: int
    shares: dict[str, float]


def way_of(tools: Sequence[str]) -> str:
    """Which of `PARTS` an episode with these searches is.

    >>> way_of(["crop", "text"])
    'mixed'
    """
    image = [tool for tool in tools if tool != "text"]
    texts = len(tools) - len(image)
    if image and texts:
        return "mixed"
    if image:
        return "crop" if "crop" in image else "whole_image"
    return "none" if not texts else "text" if texts == 1 else "multi_text"


def tool_use(label: str, tools: Sequence[Sequence[str]]) -> ToolUse | None:
    """The bar of some episodes; None where there are none."""
    if not tools:
        return None
    ways = [way_of(each) for each in tools]
    return ToolUse(label, len(ways), {part: ways.count(part) / len(ways) for part in PARTS})
