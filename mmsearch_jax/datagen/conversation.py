"""One seed question worked through by the teacher with the live tools, by the rules of an episode.

The teacher sees what the policy will see: the same prompts, the same observations, never the gold answer. A conversation that
breaks a rule is dropped whole, with an outcome that says which.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from mmsearch_jax.core import protocol, search_api
from mmsearch_jax.core.chat_client import ChatClient, ChatReply, image_part, text_part
from mmsearch_jax.core.errors import ChatFailed, ToolError
from mmsearch_jax.core.protocol import Answer, ImageSearch, Invalid, TextSearch, parse_turn
from mmsearch_jax.core.search_api import SearchReply
from mmsearch_jax.data.rows import ConversationTurn
from mmsearch_jax.datagen.budget import DatagenBudget
from mmsearch_jax.rollout.episode import reply_note
from mmsearch_jax.rollout.tool_client import ToolClient


@dataclasses.dataclass(frozen=True)
class TeacherRules:
    """What a conversation may be.

    Attributes:
      max_turns: the last must answer; the paper drops conversations of 10 turns or more.
      max_image_searches, max_text_searches: calls per tool.
      top_k_text, top_k_image: results of a search.
      observation_max_chars: an observation's content is cut to this.
    """

    max_turns: int = 9
    max_image_searches: int = 1
    max_text_searches: int = 8
    top_k_text: int = 5
    top_k_image: int = 5
    observation_max_chars: int = 6000


@dataclasses.dataclass(frozen=True)
class Worked:
    """What came of a seed: `outcome` is "answered" or why it is dropped, `why` the particulars."""

    outcome: str
    turns: tuple[ConversationTurn, ...] = ()
    answer: str | None = None
    why: str = ""


class Teacher:
    """Writes conversations.

    Args:
      chat: the endpoint.
      tools: the search server.
      rules: of a conversation.
      budget: what may be spent; each call is charged before it is made.
    """

    def __init__(self, chat: ChatClient, tools: ToolClient, rules: TeacherRules, budget: DatagenBudget):
        self._chat, self._tools, self._rules, self._budget = chat, tools, rules, budget

    async def work(self, question: str, image: bytes | None) -> Worked:
        """Works through one question.

        Raises:
          BudgetSpent: there is nothing left to spend; the seed is not done.
        """
        turns: list[ConversationTurn] = []
        content = [image_part(image)] if image else []
        messages: list[dict[str, Any]] = [
            {"role": "user", "content": [*content, text_part(protocol.first_turn_prompt(question))]}
        ]
        searches = {TextSearch: 0, ImageSearch: 0}
        limits = {TextSearch: self._rules.max_text_searches, ImageSearch: self._rules.max_image_searches}
        while len(turns) < self._rules.max_turns:
            try:
                reply = await self._ask(messages)
            except ChatFailed as error:
                return Worked("teacher_failed", why=str(error))
            text = reply.text.strip()
            if reply.refused:
                return Worked("refused", why=text[:200])
            action = parse_turn(text).action
            if isinstance(action, Invalid):
                return Worked("invalid_turn", why=f"turn {len(turns) + 1}: {action.why}")
            if isinstance(action, Answer):
                turns.append(ConversationTurn(text))
                outcome = "gave_up" if action.text == protocol.GIVE_UP else "answered"
                return Worked(outcome, tuple(turns), action.text)
            if isinstance(action, ImageSearch) and image is None:
                return Worked("over_limit", why=f"turn {len(turns) + 1}: an image search without an image")
            searches[type(action)] += 1
            if searches[type(action)] > limits[type(action)]:
                return Worked("over_limit", why=protocol.refused_note(action, limits[type(action)]))
            try:
                found = await self._search(action, image, question)
            except ToolError as error:
                return Worked("tool_failed", why=str(error))
            observation = protocol.render_observation(
                found.results, reply_note(action, found), self._rules.observation_max_chars, summary=found.summary
            )
            turns.append(ConversationTurn(text, observation, _crop(found.box)))
            seen = observation + protocol.later_prompt(action)
            messages += [{"role": "assistant", "content": text}, {"role": "user", "content": seen}]
        return Worked("too_many_turns", why=f"no answer in {self._rules.max_turns} turns")

    async def _ask(self, messages: list[dict[str, Any]]) -> ChatReply:
        self._budget.charge("teacher_calls")
        reply = await self._chat.ask(messages, lambda reply: reply)
        self._budget.add("teacher_tokens", reply.num_tokens)
        return reply

    async def _search(self, action: TextSearch | ImageSearch, image: bytes | None, question: str) -> SearchReply:
        self._budget.charge("tool_calls")
        if isinstance(action, TextSearch):
            return await self._tools.text_search(action.query, self._rules.top_k_text, question)
        assert image is not None
        return await self._tools.image_search(image, action.expression, self._rules.top_k_image)


def _crop(box: search_api.Box | None) -> search_api.Box | None:
    """A server's box as a row may hold it; None for one without area."""
    if box is None or not (0 <= box[0] < box[2] and 0 <= box[1] < box[3]):
        return None
    return box
