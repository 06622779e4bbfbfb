"""A model over HTTP that plays scripts and judges answers; its replies depend only on the request."""

import asyncio
import collections
import re

from aiohttp import web

from mmsearch_jax.core.protocol import Answer, render_turn


class ScriptedEndpoint:
    """Serves /v1/chat/completions in the test's event loop.

    Args:
      scripts: question -> the policy's turns; a plain string is an immediate answer.
      right: answers that the judge accepts; None: the judge answers with an error.
      hold_after: number of questions that are answered while this value is set; None: all.
    """

    def __init__(self, scripts, right=(), hold_after=None):
        self.scripts, self.right, self.hold_after = scripts, right, hold_after
        self.asked, self.judged = collections.Counter(), collections.Counter()
        self.requests = []

    async def handle(self, request):
        body = await request.json()
        first = body["messages"][0]["content"]
        if isinstance(first, str):
            return self._verdict(first)
        self.requests.append(body)
        *shown, text = first
        assert all(part["image_url"]["url"].startswith("data:image/") for part in shown) and len(shown) <= 1
        said = text["text"]
        question = next(known for known in self.scripts if known in said)
        turn = sum(message["role"] == "assistant" for message in body["messages"])
        self.asked[question] += not turn
        held = self.hold_after is not None and self.asked.total() > self.hold_after
        while held and self.hold_after is not None:
            await asyncio.sleep(0.05)
        script = self.scripts[question]
        if script is None:
            return web.json_response({"error": "overloaded"}, status=400)
        if isinstance(script, str):
            plain = "<answer>" not in said
            script = [script if plain else render_turn("I see.", Answer(script))]
        return _said(script[turn])

    def _verdict(self, prompt):
        answer = re.search(r'Answer to (?:judge|grade): "(.*)"', prompt)[1]
        self.judged[answer] += 1
        if self.right is None:
            return web.json_response({"error": "no"}, status=400)
        return _said("CORRECT" if answer in self.right else "INCORRECT")


def _said(text):
    usage = {"total_tokens": 110, "prompt_tokens": 100, "completion_tokens": 10}
    return web.json_response({"choices": [{"message": {"content": text}, "finish_reason": "stop"}], "usage": usage})
