"""A teacher over HTTP whose turns depend only on the request's observations; for some questions it misbehaves."""

import asyncio
import re

from aiohttp import web

from mmsearch_jax.core.protocol import Answer, ImageSearch, TextSearch, render_turn

SUBJECTS = {"capital": "Place", "How many": "Arts", "anthem": "Events"}


class ScriptedTeacher:
    """Serves /v1/chat/completions in the test's event loop; `asked` counts calls."""

    def __init__(self, delay_s=0.0):
        self.delay_s = delay_s
        self.asked, self.unlabelled, self.saw_image = 0, 0, True

    async def handle(self, request):
        self.asked += 1
        await asyncio.sleep(self.delay_s)
        messages = (await request.json())["messages"]
        content = messages[0]["content"]
        if isinstance(content, str) and "unlabelled" in content:
            self.unlabelled += 1
            return _said("none of your subjects")
        if isinstance(content, str):
            return _said(next((word for part, word in SUBJECTS.items() if part in content), "no subject of yours"))
        self.saw_image &= content[0]["type"] == "image_url"
        question = content[-1]["text"].rpartition("Question: ")[2]
        if "timeout" in question:
            await asyncio.sleep(5)
        if "refuse" in question:
            return web.json_response({"choices": [{"message": {"content": None, "refusal": "I cannot."}}]})
        return _said(turn(question, [message["content"] for message in messages[2::2]]))


def turn(question, observations):
    """The teacher's next turn."""
    if "broken" in question:
        return "<reason>Hm.</reason><text_search>never closed"
    if "endless" in question:
        return render_turn("Again.", TextSearch(f"Velmora {len(observations)}"))
    if "twice" in question:
        return render_turn("Again.", ImageSearch(None))
    if "give up" in question:
        return render_turn("No.", Answer("Unable to answer due to lack of relevant information"))
    if "How many" in question:
        return render_turn("I count.", Answer("two" if "wrong" not in question else "seven"))
    fact = "capital" if "capital" in question else "anthem"
    if not observations:
        return render_turn("Whose flag?", ImageSearch("the flag on the left"))
    land = re.search(r"\[1\] Flag of ([\w ]+)", observations[0])[1]
    if len(observations) == 1:
        return render_turn(f"{land}.", TextSearch(f"{land} {fact}"))
    value = re.search(rf"(?i){fact}: ([\w ]+)", observations[1])
    return render_turn("There it is.", Answer(value[1].strip() if value else "unknown"))


def _said(text):
    return web.json_response({"choices": [{"message": {"content": text}}], "usage": {"total_tokens": 10}})
