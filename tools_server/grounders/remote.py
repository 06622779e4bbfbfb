"""Grounding by another search server (`/v1/ground`): one machine with a GPU grounds for many servers."""

from __future__ import annotations

import asyncio

import numpy as np
import tenacity
from PIL import Image

from mmsearch_jax.core.errors import DataError
from mmsearch_jax.core.search_api import ROUTE_GROUND, ImageSearchRequest, SearchReply
from tools_server.backends.backend import QueryPicture
from tools_server.backends.providers import in_base64
from tools_server.backends.upstream import Sessions, UpstreamRequest, call
from tools_server.failures import SearchFailure
from tools_server.grounders.choose import Detections, choose
from tools_server.grounders.grounder import Grounding
from tools_server.settings.detection import DetectionRules

_MAX_ATTEMPTS = 4


class RemoteGrounder:
    """Asks another server. That server chooses and pads by its own rules; these rules only keep its boxes within the image.

    Args:
      url: the server's address.
      key: the bearer token that it asks for; "" for none.
      key_env: the variable with the token, for messages.
      deadline_s: for one expression, retries included.
    """

    name = "http"

    def __init__(self, url: str, key: str, key_env: str, sessions: Sessions, rules: DetectionRules, deadline_s: float):
        self._url, self._key, self._key_env = url.rstrip("/"), key, key_env
        self._sessions, self._rules, self._deadline_s = sessions, rules, deadline_s

    async def ground(self, image: Image.Image, expression: str) -> Grounding:
        """See `Grounder.ground`."""
        encoded = in_base64(await asyncio.to_thread(lambda: QueryPicture(image).jpeg))
        asked = ImageSearchRequest(encoded, expression, deadline_s=self._deadline_s)
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        request = UpstreamRequest("POST", self._url + ROUTE_GROUND, headers, json=asked.to_json())
        attempts = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(lambda error: isinstance(error, SearchFailure) and error.passing),
            wait=tenacity.wait_random_exponential(multiplier=0.1, max=2.0),
            stop=tenacity.stop_after_attempt(_MAX_ATTEMPTS),
            reraise=True,
        )
        try:
            async with asyncio.timeout(self._deadline_s):
                reply = await attempts(self._once, request)
        except TimeoutError:
            why = f"the grounder gave no answer within {self._deadline_s:g} s"
            raise SearchFailure("upstream_timeout", why, passing=True) from None
        boxes = [box for box in (reply.box, *reply.other_boxes) if box is not None] if reply.grounded else []
        # The other server has ordered them.
        scores = np.linspace(1.0, 0.5, len(boxes))
        return choose(Detections(np.array(boxes, float).reshape(-1, 4), scores), image.size, self._rules)

    async def close(self) -> None:
        """Nothing to close: the service owns the sessions."""

    async def _once(self, request: UpstreamRequest) -> SearchReply:
        body = await call(self._sessions, request, "the grounder", self._key, self._key_env, lambda status, text: None)
        try:
            return SearchReply.from_json(body)
        except DataError as error:
            raise SearchFailure("upstream_error", f"the grounder: unreadable answer: {error}", passing=True) from error
