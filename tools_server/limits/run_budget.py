"""What a run may spend on searches. It is kept in the store, so it survives a restart of the server."""

from __future__ import annotations

import logging
from typing import Any

from tools_server.cache.store import Allowance, Store, StoreError
from tools_server.failures import SearchFailure
from tools_server.settings.answering import BudgetSettings

_log = logging.getLogger("tools_server")


class RunBudget:
    """The budget of one run. A call is booked before it is made, so the budget is never exceeded."""

    def __init__(self, store: Store, settings: BudgetSettings):
        self._store, self.run = store, settings.run
        self._allowance = Allowance(settings.max_calls, round(settings.max_usd * 1e6))

    async def reserve(self, backend: str, cost_usd: float) -> None:
        """See `guarded.CallBudget`. A call that cannot be booked is not made."""
        try:
            if await self._store.book(self.run, backend, round(cost_usd * 1e6), self._allowance):
                return
            spent = await self._store.spent(self.run)
        except StoreError as error:
            raise SearchFailure("internal", f"the budget cannot be read: {error}", passing=True) from error
        raise SearchFailure(
            "out_of_budget",
            f"the budget of run '{self.run}' is spent ({spent.calls} calls, ${spent.micro_usd / 1e6:.4f}): raise "
            "--config.budget.max_calls or max_usd, or name another --config.budget.run",
        )

    async def refund(self, backend: str, cost_usd: float) -> None:
        """See `guarded.CallBudget`. If a refund is lost, the run only stops earlier."""
        try:
            await self._store.unbook(self.run, backend, round(cost_usd * 1e6))
        except StoreError as error:
            _log.warning("a refund could not be booked: %s", error)

    async def status(self) -> dict[str, Any]:
        """What is spent, and the limits."""
        spent = await self._store.spent(self.run)
        return {
            "run": self.run,
            "calls": spent.calls,
            "usd": spent.micro_usd / 1e6,
            "max_calls": self._allowance.max_calls,
            "max_usd": self._allowance.max_micro_usd / 1e6,
        }
