"""A detector behind the common interface: its own thread, a limit on waiting expressions, a deadline, the rules.

Pictures are processed one by one. In a batch with a larger one a picture would be padded, and Grounding DINO's backbone and
group norms depend on the padding. An answer would then depend on the other requests and could not be cached or replayed.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from PIL import Image

from tools_server.failures import SearchFailure
from tools_server.grounders.choose import Detections, choose
from tools_server.grounders.grounder import Grounding
from tools_server.settings.detection import DetectionRules
from tools_server.work_pool import WorkPool


class Detector(Protocol):
    """Finds an expression in a picture; blocks, and is called from one thread at a time."""

    def detect(self, image: Image.Image, expression: str) -> Detections:
        """Its detections in an upright RGB image."""
        ...


class LearnedGrounder:
    """Asks a detector, and chooses by the rules.

    Args:
      max_waiting: expressions in progress or waiting; further ones are refused.
      deadline_s: seconds for one expression, including the wait.
    """

    def __init__(self, name: str, detector: Detector, rules: DetectionRules, max_waiting: int, deadline_s: float):
        self.name = name
        self._detector, self._rules, self._deadline_s = detector, rules, deadline_s
        self._pool = WorkPool(1, max_waiting)

    async def ground(self, image: Image.Image, expression: str) -> Grounding:
        """See `Grounder.ground`."""
        try:
            async with asyncio.timeout(self._deadline_s):
                found = await self._pool.run(lambda: self._detector.detect(image, expression))
        except TimeoutError:
            why = f"the grounder gave no answer within {self._deadline_s:g} s"
            raise SearchFailure("upstream_timeout", why, passing=True) from None
        return choose(found, image.size, self._rules)

    async def close(self) -> None:
        """Waits for the work in progress."""
        await asyncio.to_thread(self._pool.close)
