"""The budget of a run, over all its restarts: teacher calls, teacher tokens, tool calls."""

from __future__ import annotations

import collections
from collections.abc import Mapping

KINDS = ("teacher_calls", "teacher_tokens", "tool_calls", "target_calls")


class BudgetSpent(Exception):
    """One kind of the budget is used up."""


class DatagenBudget:
    """Counts the amounts spent.

    Args:
      limits: limit of each kind (see `KINDS`); 0 or absent: no limit.
      spent: amounts spent by earlier runs.
    """

    def __init__(self, limits: Mapping[str, int], spent: Mapping[str, int] | None = None):
        self.limits = {kind: limits.get(kind, 0) for kind in KINDS}
        self.spent: collections.Counter[str] = collections.Counter(spent or {})

    def charge(self, kind: str) -> None:
        """Charges one unit of `kind`.

        Raises:
          BudgetSpent: this or another kind is used up, so that no new call may begin.
        """
        if gone := self.exhausted():
            raise BudgetSpent(gone)
        self.spent[kind] += 1

    def add(self, kind: str, amount: int) -> None:
        """Adds an amount after a call, such as its tokens."""
        self.spent[kind] += amount

    def exhausted(self) -> str | None:
        """A message on the kind that is used up; None if there is none."""
        for kind, limit in self.limits.items():
            if limit and self.spent[kind] >= limit:
                return f"budget.{kind} ({limit}) is spent"
        return None
