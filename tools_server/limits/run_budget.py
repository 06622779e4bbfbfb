"""What a run may spend on searches, kept in the store: a server that starts again goes on where it stopped."""

from __future__ import annotations

import logging
from typing import Any

from tools_server.cache.store import Allowance, Store, StoreError
from tools_server.failures import SearchFailure
from tools_server.settings.answering import BudgetSettings

_log = logging.getLogger("tools_server")


class RunBudget:
    """The budget of one run. Calls are booked before they are made, so it is never exceeded."""

    def __init__(self, store: Store, settings: BudgetSettings):
        self._store, self.run = store, settings.run
        self._allowance = Allowance(settings.max_calls, round(settings.max_usd * 1e6))

    async def reserve(self, backend: str, cost_usd: float) -> None:
        """See `guarded.Budget`. What cannot be booked is not called."""
        try:
            if await self._store.book(self.run, backend, round(cost_usd * 1e6), self._allowance):
                return
            spent = await self._store.spent(self.run)
        except StoreError as error:
            raise SearchFailure("internal", f"the budget cannot be asked: {error}", passing=True) from error
        raise SearchFailure(
            "out_of_budget",
            f"the budget of run '{self.run}' is spent ({spent.calls} calls, ${spent.micro_usd / 1e6:.4f}): raise "
            "--config.budget.max_calls or max_usd, or name another --config.budget.run",
        )

    async def refund(self, backend: str, cost_usd: float) -> None:
        """See `guarded.Budget`. A refund that is lost only makes the run stop earlier."""
        try:
            await self._store.unbook(self.run, backend, round(cost_usd * 1e6))
        except StoreError as error:
            _log.warning("money could not be booked back: %s", error)

    async def status(self) -> dict[str, Any]:
        """What is spent of what."""
        spent = await self._store.spent(self.run)
        return {
            "run": self.run,
            "calls": spent.calls,
            "usd": spent.micro_usd / 1e6,
            "max_calls": self._allowance.max_calls,
            "max_usd": self._allowance.max_micro_usd / 1e6,
        }
