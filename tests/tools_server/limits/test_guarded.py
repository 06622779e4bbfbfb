"""Limits of backends: retries, rates, budgets, hedging, chains."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.stand_ins.upstreams import Upstream
from mmsearch_jax.core.search_api import SearchResult
from tools_server.backends.upstream import Sessions
from tools_server.backends.web import WebText
from tools_server.cache.store import SqliteStore
from tools_server.failures import SearchFailure
from tools_server.limits.guarded import Chain, Guarded
from tools_server.limits.run_budget import RunBudget
from tools_server.settings.answering import BudgetSettings
from tools_server.settings.sources import BackendLimits, WebBackendSettings

FAST = BackendLimits(calls_per_s=1000.0, attempt_timeout_s=0.3)


class Backend:
    """`behave(n)` determines call number n: results, a failure to raise, or seconds to sleep before the results."""

    def __init__(self, behave: Callable[[int], Any], name: str = "b", cost_usd: float = 0.01):
        self.name, self.cost_usd, self._behave = name, cost_usd, behave
        self.times: list[float] = []
        self.in_flight = self.peak = 0

    async def search(self, query: str, top_k: int) -> tuple[SearchResult, ...]:
        self.times.append(time.monotonic())
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        try:
            how = self._behave(len(self.times) - 1)
            if isinstance(how, Exception):
                raise how
            if how:
                await asyncio.sleep(how)
            return (SearchResult(self.name, query),)
        finally:
            self.in_flight -= 1


class Booked:
    """A budget that counts."""

    def __init__(self, max_calls: int = 10**9):
        self.calls, self.usd, self._max = 0, 0.0, max_calls

    async def reserve(self, backend: str, cost_usd: float) -> None:
        if self.calls >= self._max:
            raise SearchFailure("out_of_budget", "spent")
        self.calls += 1
        self.usd += cost_usd

    async def refund(self, backend: str, cost_usd: float) -> None:
        self.usd -= cost_usd


def broken(code: str = "upstream_error", passing: bool = True, retry_after_s: float = 0.0) -> SearchFailure:
    return SearchFailure(code, f"it said {code}", passing, retry_after_s)


def run(behave: Callable[[int], Any], limits: BackendLimits = FAST, deadline_s: float = 5.0, budget: Any = None):
    backend, budget = Backend(behave), budget or Booked()
    guarded = Guarded(backend, limits, budget)

    async def go() -> Any:
        try:
            return await guarded.search("q", 3, deadline_s)
        except SearchFailure as failure:
            return failure

    return asyncio.run(go()), backend, budget


def test_a_failure_that_may_pass_is_tried_again_and_only_the_answer_is_paid():
    found, backend, budget = run(lambda n: broken() if n < 2 else 0)
    assert (found.results[0].snippet, found.backend, found.cost_usd) == ("q", "b", pytest.approx(0.01))
    assert (len(backend.times), budget.calls, budget.usd) == (3, 3, pytest.approx(0.01))


def test_a_final_failure_is_not_tried_again():
    failure, backend, budget = run(lambda n: broken("not_authorised", passing=False))
    assert (failure.code, len(backend.times), budget.usd) == ("not_authorised", 1, 0.0)


def test_a_call_that_hangs_is_given_up_tried_again_and_stays_booked():
    found, backend, budget = run(lambda n: 60 if n == 0 else 0)
    assert found.cost_usd == pytest.approx(0.02)
    assert (len(backend.times), budget.usd) == (2, pytest.approx(0.02))


def test_retries_wait_as_long_as_the_upstream_asks():
    _, backend, _ = run(lambda n: broken("rate_limited", retry_after_s=0.5) if n == 0 else 0)
    assert backend.times[1] - backend.times[0] >= 0.5


def test_all_retries_end_at_the_deadline_and_the_message_has_the_reason():
    failure, backend, _ = run(lambda n: broken(), BackendLimits(1000.0, max_attempts=1000), deadline_s=0.5)
    assert len(backend.times) < 1000
    assert (failure.code, "it said upstream_error" in failure.message) == ("upstream_error", True)


def test_attempts_are_bounded():
    failure, backend, _ = run(lambda n: broken(), BackendLimits(1000.0, max_attempts=3))
    assert (failure.code, len(backend.times)) == ("upstream_error", 3)


def test_the_budget_is_a_hard_stop():
    failure, backend, budget = run(lambda n: broken(), budget=Booked(max_calls=2))
    assert (failure.code, len(backend.times), budget.calls) == ("out_of_budget", 2, 2)


def many(backend: Backend, limits: BackendLimits, count: int) -> float:
    """Seconds that `count` parallel queries take."""

    async def go() -> float:
        guarded = Guarded(backend, limits, Booked())
        started = time.monotonic()
        await asyncio.gather(*(guarded.search(f"q{i}", 3, 30.0) for i in range(count)))
        return time.monotonic() - started

    return asyncio.run(go())


def test_the_rate_is_kept():
    backend = Backend(lambda n: 0)
    # The bucket's 20 calls start at once, the other 20 at 20 per second.
    assert many(backend, BackendLimits(calls_per_s=20.0), 40) >= 0.9
    assert sum(t - backend.times[0] < 0.5 for t in backend.times) <= 31


def test_the_concurrency_is_kept():
    backend = Backend(lambda n: 0.02)
    many(backend, BackendLimits(calls_per_s=1000.0, max_concurrency=3), 12)
    assert backend.peak == 3


def test_a_hedged_call_takes_the_first_answer():
    limits = BackendLimits(1000.0, hedge_after_s=0.05)
    found, backend, budget = run(lambda n: 20.0 if n == 0 else 0, limits)
    assert (len(backend.times), budget.calls, found.results[0].snippet) == (2, 2, "q")
    _, backend, _ = run(lambda n: 0, limits)
    assert len(backend.times) == 1


def test_a_hedged_call_survives_the_failure_of_one():
    found, _, _ = run(lambda n: 0.1 if n == 0 else broken(), BackendLimits(1000.0, max_attempts=1, hedge_after_s=0.05))
    assert found.results


def test_an_open_breaker_makes_no_calls():
    async def go() -> None:
        backend = Backend(lambda n: broken())
        guarded = Guarded(backend, BackendLimits(1000.0, max_attempts=1, breaker_window=5, breaker_rest_s=60), Booked())
        for _ in range(20):
            with pytest.raises(SearchFailure):
                await guarded.search("q", 3, 1.0)
        assert (len(backend.times), guarded.breaker.state) == (5, "open")
        with pytest.raises(SearchFailure, match="b almost always fails: no calls for 60 s"):
            await guarded.search("q", 3, 1.0)

    asyncio.run(go())


def test_the_next_backend_answers_when_one_cannot():
    async def go() -> None:
        first, second = Backend(lambda n: broken("out_of_budget", False), "one"), Backend(lambda n: 0, "two")
        chain = Chain([Guarded(first, FAST, Booked()), Guarded(second, FAST, Booked())])
        assert (await chain.search("q", 3, 5.0)).backend == "two"

    asyncio.run(go())


def test_a_backend_that_hangs_leaves_the_next_one_its_share_of_the_time():
    async def go() -> None:
        first, second = Backend(lambda n: 60, "one"), Backend(lambda n: 0.2, "two")
        slow = BackendLimits(1000.0, attempt_timeout_s=60.0)
        chain = Chain([Guarded(first, slow, Booked()), Guarded(second, slow, Booked())])
        assert (await chain.search("q", 3, 1.0)).backend == "two"

    asyncio.run(go())


def test_when_none_answers_every_reason_is_told():
    async def go() -> None:
        backends = [
            Backend(lambda n: broken("upstream_error", False), "one"),
            Backend(lambda n: broken("not_authorised", False), "two"),
        ]
        chain = Chain([Guarded(backend, FAST, Booked()) for backend in backends])
        with pytest.raises(SearchFailure, match="it said upstream_error; it said not_authorised") as caught:
            await chain.search("q", 3, 5.0)
        assert caught.value.code == "upstream_error"

    asyncio.run(go())


def test_a_run_keeps_its_spending_when_the_server_starts_again(tmp_path: Path):
    async def go() -> None:
        for calls in (3, 2):
            store = SqliteStore(tmp_path / "cache.sqlite")
            budget = RunBudget(store, BudgetSettings("run1", max_calls=5, max_usd=1.0))
            for _ in range(calls):
                await budget.reserve("serper", 0.001)
            await store.close()
        store = SqliteStore(tmp_path / "cache.sqlite")
        with pytest.raises(SearchFailure, match=r"budget of run 'run1' is spent \(5 calls, \$0.0050\)"):
            await RunBudget(store, BudgetSettings("run1", max_calls=5, max_usd=1.0)).reserve("serper", 0.001)
        with pytest.raises(SearchFailure, match="budget of run 'run1'"):
            await RunBudget(store, BudgetSettings("run1", max_usd=0.0055)).reserve("serper", 0.001)
        await RunBudget(store, BudgetSettings("run2", max_calls=5)).reserve("serper", 0.001)
        await store.close()

    asyncio.run(go())


def test_with_thirty_percent_errors_hangs_and_rate_limits_nearly_all_is_answered_and_nothing_paid_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # 30 % errors, 5 % hangs, 10 % too-many-requests, in an irregular order.
    def behave(number: int) -> str:
        place = (number * 7919 + 13) % 100
        return "error" if place < 30 else "hang" if place < 35 else "429" if place < 45 else "ok"

    monkeypatch.setenv("TEST_KEY", "k")
    count, max_calls = 400, 1000

    async def go() -> tuple[list[Any], Upstream, Any]:
        sessions, store = Sessions(), SqliteStore(tmp_path / "cache.sqlite")
        budget = RunBudget(store, BudgetSettings("run", max_calls=max_calls))
        async with Upstream("serper", behave) as upstream:
            backend = WebText(
                "serper", sessions, WebBackendSettings(url=upstream.url, key_env="TEST_KEY", cost_usd=0.001)
            )
            limits = BackendLimits(2000.0, attempt_timeout_s=2.0, max_attempts=12)
            chain = Chain([Guarded(backend, limits, budget)])
            answers = await asyncio.gather(
                *(chain.search(f"query {i}", 3, 60.0) for i in range(count)), return_exceptions=True
            )
            status = await budget.status()
            await sessions.close()
        await store.close()
        return answers, upstream, status

    answers, upstream, status = asyncio.run(go())
    failed = [answer for answer in answers if isinstance(answer, Exception)]
    assert len(failed) <= 0.005 * count, failed[:3]
    assert len(upstream.requests) == status["calls"] <= max_calls
    assert len(upstream.paid) >= 0.995 * count
    assert set(upstream.paid.values()) == {1}
