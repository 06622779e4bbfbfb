"""The budget of an evaluation: tool calls, dollars, minutes."""

from __future__ import annotations

import dataclasses
import time


@dataclasses.dataclass
class EvaluationBudget:
    """Counts calls, dollars and minutes; a limit of 0 is no limit.

    Calls and dollars count over all runs in the folder, minutes from now. Episodes in progress are finished, so the run
    may exceed a limit slightly.
    """

    calls: int = 0
    dollars: float = 0.0
    minutes: float = 0.0
    spent_calls: int = 0
    spent_dollars: float = 0.0
    began: float = dataclasses.field(default_factory=time.monotonic)

    def add(self, calls: int, dollars: float) -> None:
        """Adds the calls and dollars of an episode."""
        self.spent_calls += calls
        self.spent_dollars += dollars

    def exhausted(self) -> str | None:
        """A message on the limit that is reached; None if no limit is reached."""
        if self.calls and self.spent_calls >= self.calls:
            return f"budget.calls ({self.calls}) is spent"
        if self.dollars and self.spent_dollars >= self.dollars:
            return f"budget.dollars ({self.dollars:g}) is spent"
        if self.minutes and time.monotonic() - self.began >= 60 * self.minutes:
            return f"budget.minutes ({self.minutes:g}) is spent"
        return None
