"""A backend within its limits (rate, concurrency, budget, retries, circuit breaker, hedging), and a chain of backends."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

import tenacity
from aiolimiter import AsyncLimiter

from mmsearch_jax.core.search_api import SearchResult
from tools_server.backends.backend import Backend
from tools_server.failures import SearchFailure
from tools_server.limits.breaker import CircuitBreaker, Resting
from tools_server.settings.sources import BackendLimits

Q = TypeVar("Q")


class CallBudget(Protocol):
    """What a run may still spend."""

    async def reserve(self, backend: str, cost_usd: float) -> None:
        """Books one call before it is made.

        Raises:
          SearchFailure: out_of_budget; nothing is booked.
        """
        ...

    async def refund(self, backend: str, cost_usd: float) -> None:
        """Undoes the cost of a booking, but not its call: the upstream refused, so it did not charge."""
        ...


@dataclasses.dataclass(frozen=True)
class Found:
    """An answer: results, the backend that gave them, and the cost of all calls for it."""

    results: tuple[SearchResult, ...]
    backend: str
    cost_usd: float


@dataclasses.dataclass
class _Work:
    """The cost of one query so far, and its latest failure."""

    cost_usd: float = 0.0
    failure: SearchFailure | None = None


class Guarded(Generic[Q]):
    """One backend within its limits.

    Args:
      budget: asked before every call; None for a backend that is free.
    """

    def __init__(self, backend: Backend[Q], limits: BackendLimits, budget: CallBudget | None):
        self.name, self._backend, self._limits, self._budget = backend.name, backend, limits, budget
        self._cost = backend.cost_usd
        # The calls of one second; a bucket smaller than one call would never let one through.
        burst = max(limits.calls_per_s, 1.0)
        self._rate = AsyncLimiter(burst, burst / limits.calls_per_s)
        self._gate = asyncio.Semaphore(limits.max_concurrency)
        self.breaker = CircuitBreaker(limits.breaker_window, limits.breaker_share, limits.breaker_rest_s)
        self.calls: dict[str, int] = {}
        """Number of calls by outcome: "ok" or a failure's code."""

    async def search(self, query: Q, top_k: int, deadline_s: float) -> Found:
        """One query, retried within the deadline as long as the failure may pass.

        Raises:
          SearchFailure: no answer; gives the last call's failure.
        """
        work = _Work()
        attempts = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(lambda error: isinstance(error, SearchFailure) and error.passing),
            wait=_pause,
            stop=tenacity.stop_after_attempt(self._limits.max_attempts),
            reraise=True,
        )
        try:
            async with asyncio.timeout(deadline_s):
                async for attempt in attempts:
                    with attempt:
                        results = await self._hedged(query, top_k, work)
                        return Found(results, self.name, work.cost_usd)
        except TimeoutError:
            why = f": {work.failure.message}" if work.failure else ""
            code = work.failure.code if work.failure else "upstream_timeout"
            raise SearchFailure(code, f"{self.name} gave no answer within {deadline_s:.1f} s{why}") from None
        raise AssertionError("tenacity re-raises the last failure")

    async def _hedged(self, query: Q, top_k: int, work: _Work) -> tuple[SearchResult, ...]:
        if not self._limits.hedge_after_s:
            return await self._once(query, top_k, work)
        calls = {asyncio.ensure_future(self._once(query, top_k, work))}
        try:
            done, _ = await asyncio.wait(calls, timeout=self._limits.hedge_after_s)
            if not done:
                calls.add(asyncio.ensure_future(self._once(query, top_k, work)))
            waiting = calls
            while True:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                good = [call for call in done if call.exception() is None]
                if good or not waiting:
                    return (good or list(done))[0].result()
        finally:
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)

    async def _once(self, query: Q, top_k: int, work: _Work) -> tuple[SearchResult, ...]:
        await self._rate.acquire()
        async with self._gate:
            try:
                probe = self.breaker.admit()
            except Resting as resting:
                why = f"{self.name} almost always fails: no calls for {resting.rest_s:.0f} s"
                raise SearchFailure("upstream_error", why, retry_after_s=resting.rest_s) from None
            outcome = None
            try:
                if self._budget is not None:
                    await self._budget.reserve(self.name, self._cost)
                work.cost_usd += self._cost
                results = await self._called(query, top_k, work)
                outcome = "ok"
                return results
            except SearchFailure as failure:
                outcome, work.failure = failure.code, failure
                raise
            finally:
                self._count(outcome, probe)

    async def _called(self, query: Q, top_k: int, work: _Work) -> tuple[SearchResult, ...]:
        timeout_s = self._limits.attempt_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                return await self._backend.search(query, top_k)
        except TimeoutError:
            # The call hung, so it may have been charged: its cost stays booked.
            why = f"{self.name} did not answer within {timeout_s:g} s"
            raise SearchFailure("upstream_timeout", why, passing=True) from None
        except SearchFailure:
            work.cost_usd -= self._cost
            if self._budget is not None:
                await self._budget.refund(self.name, self._cost)
            raise

    def _count(self, outcome: str | None, probe: bool) -> None:
        if outcome is None:
            self.breaker.forget(probe)
            return
        self.calls[outcome] = self.calls.get(outcome, 0) + 1
        # "Too fast" and "wrong key" show that the upstream works; only timeouts and errors count as failures.
        self.breaker.record(outcome not in ("upstream_error", "upstream_timeout"), probe)


def _pause(state: tenacity.RetryCallState) -> float:
    """Exponential pause with jitter, at least as long as the upstream asked for."""
    pause = tenacity.wait_random_exponential(multiplier=0.1, max=5.0)(state)
    error = state.outcome.exception() if state.outcome is not None else None
    return max(pause, error.retry_after_s) if isinstance(error, SearchFailure) else pause


class Chain(Generic[Q]):
    """Backends in the order in which they are tried: the next one answers when one cannot."""

    def __init__(self, backends: Sequence[Guarded[Q]]):
        self.backends = list(backends)

    async def search(self, query: Q, top_k: int, deadline_s: float) -> Found:
        """One query within a deadline. Each backend gets an equal share of the time that is left.

        Raises:
          SearchFailure: no backend answered. The message has every reason; the code is the last one that does not concern
            budget or keys.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + deadline_s
        failures: list[SearchFailure] = []
        for i, backend in enumerate(self.backends):
            try:
                return await backend.search(query, top_k, (end - loop.time()) / (len(self.backends) - i))
            except SearchFailure as failure:
                failures.append(failure)
        telling = [f for f in failures if f.code not in ("out_of_budget", "not_authorised")] or failures
        message = "; ".join(failure.message for failure in failures)
        raise SearchFailure(telling[-1].code, message, retry_after_s=max(f.retry_after_s for f in failures))
