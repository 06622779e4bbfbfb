"""The teacher answers one seed question with the live tools, under the rules of an episode.

The teacher plays the same `Episode` as the policy in GRPO: the same prompts, and observations that are cut by tokens of
the policy's tokenizer. It never sees the gold answer. A conversation that breaks a rule is dropped; its outcome names
the rule.
"""

from __future__ import annotations

import dataclasses

from mmsearch_jax.core import protocol, search_api
from mmsearch_jax.core.chat_client import ChatClient, ChatReply
from mmsearch_jax.core.errors import ChatFailed, ToolError
from mmsearch_jax.core.search_api import SearchReply
from mmsearch_jax.core.trajectory import Status, Trajectory
from mmsearch_jax.data.rows import ConversationTurn
from mmsearch_jax.datagen.budget import DatagenBudget
from mmsearch_jax.datagen.outcome import SeedOutcome
from mmsearch_jax.rollout.endpoint_episode import Transcript, cut_turn, play_episode
from mmsearch_jax.rollout.episode import Episode, Finish, Generation, Renderer
from mmsearch_jax.rollout.tool_client import Tools
from mmsearch_jax.settings.rollout import EpisodeConfig

_WITHOUT_ANSWER = {
    Status.NO_ANSWER: (SeedOutcome.TOO_MANY_TURNS, "the last turn is no answer"),
    Status.INVALID_ACTION: (SeedOutcome.INVALID_TURN, "a turn is outside the grammar"),
    Status.OVERLONG: (SeedOutcome.OVERLONG, "a turn has too many tokens"),
}
"""Status without an answer -> outcome, and the reason that is used if the trajectory has none."""


@dataclasses.dataclass(frozen=True)
class Worked:
    """The result of a seed: `dropped` is the reason for dropping it, with details in `why`; None if the teacher answered."""

    dropped: SeedOutcome | None = None
    turns: tuple[ConversationTurn, ...] = ()
    answer: str | None = None
    why: str = ""


class Teacher:
    """Writes conversations.

    Args:
      chat: the endpoint of the teacher's model.
      tools: the search server.
      rules: rules of a tagged episode that ends at a turn outside the grammar. Limits count text tokens, not images.
      renderer: uses the tokenizer of the policy that will be trained.
      budget: charged before each call.
    """

    def __init__(self, chat: ChatClient, tools: Tools, rules: EpisodeConfig, renderer: Renderer, budget: DatagenBudget):
        self._chat, self._tools, self._rules = chat, _ChargedTools(tools, budget), rules
        self._renderer, self._budget = renderer, budget

    async def work(self, question: str, image: bytes | None) -> Worked:
        """Answers one question.

        Raises:
          BudgetSpent: the budget is used up; the seed stays unfinished.
        """
        rules = self._rules if image is not None else dataclasses.replace(self._rules, allow_image=False)
        transcript = Transcript(self._renderer, image)
        trajectory = Trajectory("", "", "")
        episode = Episode(trajectory, question, [], [], rules, transcript)

        async def write_turn(max_tokens: int) -> Generation:
            if trajectory.turns and (refused := _refusal(trajectory)):
                raise _Dropped(SeedOutcome.OVER_LIMIT, f"turn {len(trajectory.turns)}: {refused}")
            reply = await self._ask(transcript)
            # JSON may contain lone surrogates, which cannot be encoded.
            text = reply.text.strip().encode("utf-8", "replace").decode()
            if reply.refused:
                raise _Dropped(SeedOutcome.REFUSED, text[:200])
            turn, finish = cut_turn(reply._replace(text=text), plain=False)
            generation = transcript.turn(turn, finish)
            # The endpoint limits tokens of the teacher's tokenizer; the turn must also fit in the policy's tokens.
            fits = len(generation.token_ids) <= max_tokens
            return generation if fits else dataclasses.replace(generation, finish=Finish.LENGTH)

        try:
            await play_episode(episode, write_turn, self._tools, question, image)
        except _Dropped as dropped:
            return Worked(dropped.outcome, why=dropped.why)
        except ChatFailed as error:
            return Worked(SeedOutcome.TEACHER_FAILED, why=str(error))
        except ToolError as error:
            return Worked(SeedOutcome.TOOL_FAILED, why=str(error))
        if trajectory.status != Status.ANSWERED:
            outcome, why = _WITHOUT_ANSWER[trajectory.status]
            return Worked(outcome, why=f"turn {len(trajectory.turns)}: {trajectory.error or why}")
        turns = tuple(
            ConversationTurn(turn.text, turn.observation, _crop(turn.tool.box if turn.tool else None))
            for turn in trajectory.turns
        )
        dropped = SeedOutcome.GAVE_UP if trajectory.answer == protocol.GIVE_UP else None
        return Worked(dropped, turns, trajectory.answer)

    async def _ask(self, transcript: Transcript) -> ChatReply:
        self._budget.charge("teacher_calls")
        reply = await self._chat.ask(transcript.messages, lambda reply: reply)
        self._budget.add("teacher_tokens", reply.num_tokens)
        return reply


class _Dropped(Exception):
    """The conversation is dropped, and the teacher is not asked for further turns."""

    def __init__(self, outcome: SeedOutcome, why: str):
        super().__init__(outcome, why)
        self.outcome, self.why = outcome, why


class _ChargedTools:
    """The search server's client; charges each call before it is made."""

    def __init__(self, tools: Tools, budget: DatagenBudget):
        self._tools, self._budget = tools, budget

    async def text_search(self, query: str, top_k: int = 5, question: str = "") -> SearchReply:
        self._budget.charge("tool_calls")
        return await self._tools.text_search(query, top_k, question)

    async def image_search(self, image: bytes, expression: str | None = None, top_k: int = 5) -> SearchReply:
        self._budget.charge("tool_calls")
        return await self._tools.image_search(image, expression, top_k)


def _refusal(trajectory: Trajectory) -> str | None:
    """The episode's reason for refusing the last turn's search; None if it did not refuse it."""
    last = trajectory.turns[-1]
    refused = last.tool is not None and last.tool.refused
    return protocol.observation_content(last.observation or "") if refused else None


def _crop(box: search_api.Box | None) -> search_api.Box | None:
    """A server's box in the form of a row's box; None if it has no area."""
    if box is None or not (0 <= box[0] < box[2] and 0 <= box[1] < box[3]):
        return None
    return box
