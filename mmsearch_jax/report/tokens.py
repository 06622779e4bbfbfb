"""Trajectories' tokens for the page: where each came from and how likely it was, in as few bytes as they need."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from mmsearch_jax.core.errors import MMSearchError
from mmsearch_jax.core.trajectory import SAMPLED
from mmsearch_jax.data.chat import ChatRenderer
from mmsearch_jax.models.tokenizer import load_tokenizer


class TokenPool:
    """The spellings of all tokens that were met, each once, of whatever tokenizers."""

    def __init__(self) -> None:
        self.spellings: list[str | list[int]] = []
        """Text, or the bytes of a token that is no text by itself."""
        self._index: dict[bytes, int] = {}

    def index(self, spelling: bytes) -> int:
        """Place of a token's bytes."""
        if spelling not in self._index:
            self._index[spelling] = len(self.spellings)
            try:
                self.spellings.append(spelling.decode())
            except UnicodeDecodeError:
                self.spellings.append(list(spelling))
        return self._index[spelling]


class TokenWriter:
    """Writes tokens of one evaluation's trajectories, by its checkpoint's tokenizer.

    Args:
      checkpoint: folder; where it has gone, no tokens are written.
      budget: of tokens over all trajectories.
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
        """Tokens `t` (places in the pool; -n: an image of n tokens), runs `p` of provenance ([source, count]), and `l` the
        log-probs of sampled tokens in hundredths of a nat. None where they cannot be told or the budget is used up.
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
            # Control tokens have no bytes of their own: their spelling is shown.
            self._places[token_id] = self._pool.index(known or renderer.decode([token_id]).encode())
        return self._places[token_id]
