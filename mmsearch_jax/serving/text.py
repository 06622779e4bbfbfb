"""Decodes a stream of tokens to text; holds back incomplete characters, and ends before a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class TextStream:
    """The text of one reply.

    Args:
      token_bytes: the bytes of each token id (`ChatRenderer.token_bytes`).
      stop: stop strings; the reply ends before the first that occurs.
    """

    def __init__(self, token_bytes: Sequence[bytes], stop: Sequence[str] = ()):
        self._bytes, self._stop = token_bytes, stop
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self.stopped = False
        """Whether a stop string occurred; further tokens have no effect."""

    def feed(self, token_id: int) -> str:
        """Adds a token and returns the text that can be sent."""
        return "" if self.stopped else self._take(self._decoder.decode(self._bytes[token_id]))

    def end(self) -> str:
        """Ends the stream and returns the text that was held back."""
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
    """Length of the longest suffix of `text` that is a prefix of `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)
