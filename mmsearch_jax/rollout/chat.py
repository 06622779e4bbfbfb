"""One reply in a free conversation, without tags and tools: the chat server uses it instead of an `Episode`.

Pure, like the episode. `data.chat` renders the conversation to token ids.
"""

from __future__ import annotations

from collections.abc import Sequence

from mmsearch_jax.core.protocol import ImageSearch, TextSearch
from mmsearch_jax.core.search_api import SearchReply
from mmsearch_jax.core.trajectory import PROMPT, Status, Trajectory
from mmsearch_jax.rollout.episode import Done, Finish, Generate, Generation, Need


class Chat:
    """Samples one message of at most `max_tokens` tokens after `prompt_ids`.

    The trajectory ends "answered" if the policy closed its message, "overlong" if it reached its token limit.
    """

    def __init__(self, trajectory: Trajectory, prompt_ids: Sequence[int], max_tokens: int):
        self.trajectory, self._prompt_ids, self._max_tokens = trajectory, prompt_ids, max_tokens

    @property
    def done(self) -> bool:
        """Whether the message is complete."""
        return self.trajectory.status != Status.RUNNING

    def begin(self) -> Need:
        """Appends the prompt, and asks for the message."""
        self.trajectory.append(self._prompt_ids, PROMPT)
        return Generate(self._max_tokens)

    def generated(self, generation: Generation) -> Need:
        """Takes the message that the policy wrote."""
        self.trajectory.append_sampled(generation.token_ids, generation.logprobs)
        self.trajectory.status = Status.OVERLONG if generation.finish == Finish.LENGTH else Status.ANSWERED
        return Done()

    def observed(self, action: TextSearch | ImageSearch, reply: SearchReply) -> Need:
        """Never called: a chat calls no tool."""
        raise AssertionError("a chat calls no tool")

    def fail(self, status: Status, error: str) -> Done:
        """Ends the reply from outside, for example when the client has disconnected."""
        self.trajectory.status, self.trajectory.error = status, error
        return Done()
