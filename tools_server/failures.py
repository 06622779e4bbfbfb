"""The failure of a search: a code that the caller can act on, and a message without secrets."""

from __future__ import annotations

from mmsearch_jax.core.search_api import ERRORS


class SearchFailure(Exception):
    """A search gave no answer.

    Args:
      code: a key of `search_api.ERRORS`.
      message: what went wrong and, if the user can correct it, how. Never contains a key.
      passing: whether the same call may soon succeed.
      retry_after_s: seconds that the upstream asked to wait.
    """

    def __init__(self, code: str, message: str, passing: bool = False, retry_after_s: float = 0.0):
        assert code in ERRORS, code
        super().__init__(message)
        self.code, self.message = code, message
        self.passing, self.retry_after_s = passing, retry_after_s
