"""What a run may spend, over all its restarts: teacher calls, teacher tokens, tool calls."""

from __future__ import annotations

import collections
from collections.abc import Mapping

KINDS = ("teacher_calls", "teacher_tokens", "tool_calls", "target_calls")


class BudgetSpent(Exception):
    """Nothing is left to spend of one kind."""


class DatagenBudget:
    """Counts what is spent.

    Args:
      limits: by kind (see `KINDS`); 0 or nothing for no limit.
      spent: by earlier runs.
    """

    def __init__(self, limits: Mapping[str, int], spent: Mapping[str, int] | None = None):
        self.limits = {kind: limits.get(kind, 0) for kind in KINDS}
        self.spent: collections.Counter[str] = collections.Counter(spent or {})

    def charge(self, kind: str) -> None:
        """Takes one of `kind`.

        Raises:
          BudgetSpent: there is none, or none of another kind: nothing new is to be begun.
        """
        if gone := self.exhausted():
            raise BudgetSpent(gone)
        self.spent[kind] += 1

    def add(self, kind: str, amount: int) -> None:
        """Notes what was used; tokens are known only afterwards."""
        self.spent[kind] += amount

    def exhausted(self) -> str | None:
        """The kind that is used up, in words; None while there is something of each left."""
        for kind, limit in self.limits.items():
            if limit and self.spent[kind] >= limit:
                return f"budget.{kind} ({limit}) is spent"
        return None
