"""What a run may spend, over all its restarts: teacher calls, teacher tokens, tool calls."""

from __future__ import annotations

import collections
from collections.abc import Mapping

KINDS = ("teacher_calls", "teacher_tokens", "tool_calls", "target_calls")


class BudgetSpent(Exception):
    """The budget of one kind is used up."""


class DatagenBudget:
    """Counts what is spent.

    Args:
      limits: by kind (see `KINDS`); 0 or absent: no limit.
      spent: by earlier runs.
    """

    def __init__(self, limits: Mapping[str, int], spent: Mapping[str, int] | None = None):
        self.limits = {kind: limits.get(kind, 0) for kind in KINDS}
        self.spent: collections.Counter[str] = collections.Counter(spent or {})

    def charge(self, kind: str) -> None:
        """Takes one of `kind`.

        Raises:
          BudgetSpent: this kind or another one is used up: nothing new may begin.
        """
        if gone := self.exhausted():
            raise BudgetSpent(gone)
        self.spent[kind] += 1

    def add(self, kind: str, amount: int) -> None:
        """Adds to what is spent; tokens are known only after a call."""
        self.spent[kind] += amount

    def exhausted(self) -> str | None:
        """The kind that is used up, in words; None while every kind has something left."""
        for kind, limit in self.limits.items():
            if limit and self.spent[kind] >= limit:
                return f"budget.{kind} ({limit}) is spent"
        return None
