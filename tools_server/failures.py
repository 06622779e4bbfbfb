"""The one way in which a search fails: a code that the caller can act on, and a message without secrets."""

from __future__ import annotations

from mmsearch_jax.core.search_api import ERRORS


class SearchFailure(Exception):
    """A search gave no answer.

    Args:
      code: a key of `search_api.ERRORS`.
      message: what went wrong and, where the user can mend it, how. Never holds a key.
      passing: whether the same call may succeed in a moment.
      retry_after_s: how long the upstream asked to be left alone.
    """

    def __init__(self, code: str, message: str, passing: bool = False, retry_after_s: float = 0.0):
        assert code in ERRORS, code
        super().__init__(message)
        self.code, self.message = code, message
        self.passing, self.retry_after_s = passing, retry_after_s
