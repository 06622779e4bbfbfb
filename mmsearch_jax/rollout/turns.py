"""Where a turn ends: the tokens that stop it, and the cut exactly after its closing tag. No array on a device."""

from __future__ import annotations

import numpy as np

from mmsearch_jax.core.protocol import CLOSING_TAGS
from mmsearch_jax.data.chat import ChatRenderer
from mmsearch_jax.rollout import programs, sampling
from mmsearch_jax.rollout.episode import Finish, Generation
from mmsearch_jax.rollout.sequence import LiveSequence


class TurnEnds:
    """Detects and cuts the ends of turns.

    Args:
      renderer: of the policy's tokenizer.
      vocabulary_size: of the model, which may have more ids than the tokenizer.
    """

    def __init__(self, renderer: ChatRenderer, vocabulary_size: int):
        self._renderer = renderer
        self._automaton = sampling.TagAutomaton(renderer.token_bytes, CLOSING_TAGS, vocabulary_size)
        self._stop = np.zeros(vocabulary_size, bool)
        self._stop[list(renderer.stop_ids)] = True
        has_text = np.zeros(vocabulary_size, bool)
        has_text[: renderer.vocabulary_size] = [bool(text) for text in renderer.token_bytes]
        self._banned = ~(has_text | self._stop)

    def constants(self, seed: int) -> programs.DecodeConstants:
        """The constants of the decode program, as host arrays."""
        return programs.DecodeConstants(self._automaton.table, self._stop, self._banned, np.uint32(seed))

    def reason(self, sequence: LiveSequence) -> Finish:
        """Why the sequence's turn has ended."""
        if not sequence.plain and sequence.state == self._automaton.accept:
            return Finish.CLOSED
        return Finish.STOP if sequence.new_ids[-1] in self._renderer.stop_ids else Finish.LENGTH

    def take(self, sequence: LiveSequence) -> Generation:
        """Returns the finished turn, cut exactly after its closing tag.

        A last token that contains bytes after the end of the tag is dropped (it is not in the cache either); the
        rest of the tag becomes `forced_ids`.
        """
        assert sequence.finish is not None
        ids, logprobs, forced = sequence.new_ids, sequence.new_logprobs, []
        if sequence.finish == Finish.CLOSED:
            text = b"".join(self._renderer.token_bytes[i] for i in ids)
            end = self._automaton.find(text)
            assert end is not None, "the automaton and the text disagree"
            if end < len(text):
                kept = len(text) - len(self._renderer.token_bytes[ids[-1]])
                forced = self._renderer.encode(text[kept:end].decode("utf-8", errors="replace"))
                ids, logprobs = ids[:-1], logprobs[:-1]
        sequence.budget = 0
        return Generation(ids, logprobs, sequence.finish, forced)
