"""Turns tokens into text as they arrive, without incomplete characters and without text from a stop string on."""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class TextStream:
    """The text of one reply.

    Args:
      token_bytes: of each id (`ChatRenderer.token_bytes`).
      stop: the reply ends before the first of these.
    """

    def __init__(self, token_bytes: Sequence[bytes], stop: Sequence[str] = ()):
        self._bytes, self._stop = token_bytes, stop
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self.stopped = False
        """Whether a stop string was met; further tokens change nothing."""

    def feed(self, token_id: int) -> str:
        """Takes a token and returns the text that is now certain."""
        return "" if self.stopped else self._take(self._decoder.decode(self._bytes[token_id]))

    def end(self) -> str:
        """No more tokens: returns the text that was held back."""
        return "" if self.stopped else self._take(self._decoder.decode(b"", final=True), last=True)

    def _take(self, text: str, last: bool = False) -> str:
        held = self._held + text
        places = [place for stop in self._stop if (place := held.find(stop)) >= 0]
        if places:
            self.stopped, self._held = True, ""
            return held[: min(places)]
        kept = 0 if last else max((_overlap(held, stop) for stop in self._stop), default=0)
        self._held = held[len(held) - kept :]
        return held[: len(held) - kept]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a beginning of `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)
