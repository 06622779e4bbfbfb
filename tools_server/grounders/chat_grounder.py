"""A vision-language model that writes boxes, at any OpenAI-compatible chat endpoint.

The prompt has the form that Qwen2.5-VL was trained on (arXiv 2502.13923, section on grounding): JSON with `bbox_2d` in pixels
of the picture as the model sees it. The model sees the picture as it was sent only if its sides are multiples of 28 and its
area is within the endpoint's limits, so it is resized to that before it is sent.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import re

import numpy as np
from PIL import Image

from mmsearch_jax.core.chat_client import ChatClient, ChatReply, Unreadable, image_part, text_part
from mmsearch_jax.core.errors import ChatFailed
from tools_server.backends.backend import QueryPicture
from tools_server.failures import SearchFailure
from tools_server.grounders.choose import Detections, choose
from tools_server.grounders.grounder import Grounding
from tools_server.settings.detection import DetectionRules

PATCH = 28
"""Side of the square that becomes one token of Qwen2.5-VL, in pixels."""
_MAX_PIXELS = 1280 * PATCH * PATCH
"""The largest picture in Qwen2.5-VL's examples; endpoints accept at least this."""
_MAX_BOXES = 1000
_PROMPT = """Find in the image: {expression}
Answer with JSON alone: a list of {{"bbox_2d": [x0, y0, x1, y1], "label": "..."}} in pixels, what fits best first.
If nothing in the image fits, answer []."""
_BOX = re.compile(r'"bbox_2d"\s*:\s*(\[[^\[\]{}]*\])')


class ChatGrounder:
    """Asks a model for boxes. It gives no scores: its order is the order of preference."""

    name = "chat"

    def __init__(self, chat: ChatClient, rules: DetectionRules):
        self._chat, self._rules = chat, rules

    async def ground(self, image: Image.Image, expression: str) -> Grounding:
        """See `Grounder.ground`."""
        size = sent_size(image.size)
        encoded = await asyncio.to_thread(lambda: QueryPicture(image.resize(size, Image.Resampling.BICUBIC)).jpeg)
        content = [image_part(encoded), text_part(_PROMPT.format(expression=expression))]
        try:
            # The client's own deadline starts only when the request leaves its queue.
            async with asyncio.timeout(self._chat.endpoint.deadline_s):
                boxes = await self._chat.ask([{"role": "user", "content": content}], read_boxes)
        except (ChatFailed, TimeoutError) as error:
            late = isinstance(error, TimeoutError) or isinstance(error.__cause__, TimeoutError)
            # The endpoint's text is not repeated: it may contain anything.
            why = "in time" if late else "that can be read"
            code = "upstream_timeout" if late else "upstream_error"
            raise SearchFailure(code, f"the grounding model gave no boxes {why}", passing=True) from error
        scale = np.array([image.width / size[0], image.height / size[1]] * 2)
        return choose(Detections(boxes * scale, np.linspace(1.0, 0.5, len(boxes))), image.size, self._rules)

    async def close(self) -> None:
        """Closes the connections to the model."""
        await self._chat.close()


def sent_size(size: tuple[int, int]) -> tuple[int, int]:
    """Width and height at which an image is sent: multiples of 28, close to its size and within the limit."""
    width, height = size
    shrink = min(1.0, math.sqrt(_MAX_PIXELS / (width * height)))
    wide, high = (max(2, round(side * shrink / PATCH)) for side in (width, height))
    # Rounding up, or the minimum of two tokens, may have exceeded the limit again.
    while wide * high * PATCH * PATCH > _MAX_PIXELS:
        wide, high = (wide - 1, high) if wide > high else (wide, high - 1)
    return wide * PATCH, high * PATCH


def read_boxes(completion: ChatReply) -> np.ndarray:
    """The boxes in a reply, float [N, 4]; none if it says that nothing fits.

    Code fences, prose around the JSON and a truncated end of the list are skipped.

    Raises:
      Unreadable: the model declined, the reply is empty, or it has no complete box.
    """
    text = completion.text.strip()
    if completion.refused or not text:
        raise Unreadable("it declined" if completion.refused else "its reply is empty")
    boxes = []
    for match in itertools.islice(_BOX.finditer(text), _MAX_BOXES):
        try:
            box = [float(value) for value in json.loads(match[1])]
        except (ValueError, TypeError, OverflowError):
            continue
        if len(box) == 4:
            boxes.append(box)
    if not boxes and "bbox_2d" in text:
        raise Unreadable("its boxes are not four numbers each")
    return np.array(boxes, float).reshape(-1, 4)
