"""Compact records of the trajectories' tokens for the page: provenance and log-prob of each token."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from mmsearch_jax.core.errors import MMSearchError
from mmsearch_jax.core.trajectory import SAMPLED
from mmsearch_jax.data.chat import ChatRenderer
from mmsearch_jax.models.tokenizer import load_tokenizer


class TokenPool:
    """The spellings of all tokens of all tokenizers, each once."""

    def __init__(self) -> None:
        self.spellings: list[str | list[int]] = []
        """A token's text, or its bytes if they are not valid UTF-8 on their own."""
        self._index: dict[bytes, int] = {}

    def index(self, spelling: bytes) -> int:
        """Index of a token's bytes in `spellings`."""
        if spelling not in self._index:
            self._index[spelling] = len(self.spellings)
            try:
                self.spellings.append(spelling.decode())
            except UnicodeDecodeError:
                self.spellings.append(list(spelling))
        return self._index[spelling]


class TokenWriter:
    """Writes the tokens of one evaluation's trajectories with its checkpoint's tokenizer.

    Args:
      checkpoint: folder of the checkpoint; if it is missing, no tokens are written.
      budget: largest number of tokens over all trajectories.
    """

    def __init__(self, checkpoint: str, pool: TokenPool, budget: int):
        self._pool, self._left = pool, budget
        self._places: dict[int, int] = {}
        self.left_out = 0
        try:
            self._renderer: ChatRenderer | None = ChatRenderer(load_tokenizer(Path(checkpoint)))
        except MMSearchError:
            self._renderer = None

    def write(self, trajectory: dict[str, Any]) -> dict[str, Any] | None:
        """The record of a trajectory's tokens; None if the tokens are not known, or if the budget is used up.

        `t`: tokens as indices into the pool (-n: an image of n tokens); `p`: runs of provenance ([source, count]); `l`:
        log-probs of the sampled tokens in hundredths of a nat.
        """
        ids = trajectory["token_ids"]
        if self._renderer is None or not ids:
            return None
        if len(ids) > self._left:
            self.left_out += 1
            return None
        self._left -= len(ids)
        places, sources = [], []
        for (token_id, source), run in itertools.groupby(zip(ids, trajectory["provenance"], strict=True)):
            count = sum(1 for _ in run)
            if token_id == self._renderer.image_pad:
                places.append(-count)
                sources.append(source)
            else:
                places += [self._place(token_id)] * count
                sources += [source] * count
        runs = [[source, len(list(run))] for source, run in itertools.groupby(sources)]
        pairs = zip(trajectory["logprobs"], trajectory["provenance"], strict=True)
        return {"t": places, "p": runs, "l": [round(100 * value) for value, source in pairs if source == SAMPLED]}

    def _place(self, token_id: int) -> int:
        if token_id not in self._places:
            renderer = self._renderer
            assert renderer is not None
            known = renderer.token_bytes[token_id] if token_id < renderer.vocabulary_size else b""
            # Control tokens have no bytes, so their spelling is shown.
            self._places[token_id] = self._pool.index(known or renderer.decode([token_id]).encode())
        return self._places[token_id]
