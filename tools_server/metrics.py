"""Counts of what the server did, for Prometheus. Each app has a registry of its own: nothing is global."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tools_server.search_service import Parts

BUCKETS_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000)
CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """Requests by route and status, their times, and how many are in flight."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.in_flight = Gauge("tools_requests_in_flight", "Requests being answered now.", registry=self._registry)
        self._requests = Counter(
            "tools_requests", "Requests by route and HTTP status.", ["route", "status"], registry=self._registry
        )
        self._milliseconds = Histogram(
            "tools_request_ms", "Time to answer, in ms.", ["route"], buckets=BUCKETS_MS, registry=self._registry
        )

    def record(self, route: str, status: int, elapsed_ms: float) -> None:
        """Counts one finished request."""
        self._requests.labels(route, str(status)).inc()
        self._milliseconds.labels(route).observe(elapsed_ms)

    def render(self, parts: Parts, spent: Mapping[str, Any] | None) -> bytes:
        """The page that a scraper reads, of type `CONTENT_TYPE`; `spent` as `RunBudget.status` gives it."""
        service = CollectorRegistry()
        service.register(_ServiceCounts(parts, spent))
        return generate_latest(self._registry) + generate_latest(service)


class _ServiceCounts(Collector):
    """What the parts of the service have counted themselves."""

    def __init__(self, parts: Parts, spent: Mapping[str, Any] | None):
        self._parts, self._spent = parts, spent

    def collect(self) -> Iterator[Metric]:
        cache = CounterMetricFamily("tools_cache", "Look-ups in the cache.", labels=["outcome"])
        for name in ("hits", "misses", "shared", "doubtful", "read_errors", "write_errors"):
            cache.add_metric([name], getattr(self._parts.cache, name))
        yield cache
        calls = CounterMetricFamily(
            "tools_backend_calls", "Calls of search backends.", labels=["kind", "backend", "outcome"]
        )
        for kind, chain in (("text", self._parts.text), ("image", self._parts.image)):
            for backend in chain.backends:
                for outcome, count in sorted(backend.calls.items()):
                    calls.add_metric([kind, backend.name, outcome], count)
        yield calls
        if self._parts.reader is not None:
            pages = CounterMetricFamily("tools_pages", "Pages read for search results.", labels=["outcome"])
            for outcome, count in sorted(self._parts.reader.outcomes.items()):
                pages.add_metric([outcome], count)
            yield pages
        if self._spent is not None:
            yield GaugeMetricFamily("tools_spent_calls", "Paid calls of this budget.", self._spent["calls"])
            yield GaugeMetricFamily("tools_spent_usd", "US dollars spent of this budget.", self._spent["usd"])
