"""Counts of what the server did, in Prometheus' text format."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Mapping
from typing import Any

from tools_server.search_service import Parts

BUCKETS_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000)


class Metrics:
    """Requests by route and status, their times, and how many are under way. Used from the event loop
    alone."""

    def __init__(self) -> None:
        self.in_flight = 0
        self._requests: Counter[tuple[str, int]] = Counter()
        self._buckets: dict[str, list[int]] = {}
        self._total_ms: Counter[str] = Counter()

    def record(self, route: str, status: int, elapsed_ms: float) -> None:
        """Counts one finished request."""
        self._requests[route, status] += 1
        counts = self._buckets.setdefault(route, [0] * (len(BUCKETS_MS) + 1))
        counts[bisect.bisect_left(BUCKETS_MS, elapsed_ms)] += 1
        self._total_ms[route] += elapsed_ms  # pyright: ignore[reportArgumentType]  (a Counter of floats)

    def render(self, parts: Parts, spent: Mapping[str, Any] | None) -> str:
        """The page that a scraper reads; `spent` as `RunBudget.status` gives it."""
        lines = ["# TYPE tools_requests_in_flight gauge", f"tools_requests_in_flight {self.in_flight}"]
        lines.append("# TYPE tools_requests_total counter")
        for (route, status), count in sorted(self._requests.items()):
            lines.append(f'tools_requests_total{{route="{route}",status="{status}"}} {count}')
        lines.append("# TYPE tools_request_ms histogram")
        for route, counts in sorted(self._buckets.items()):
            total = 0
            for bound, count in zip([*map(str, BUCKETS_MS), "+Inf"], counts, strict=True):
                total += count
                lines.append(f'tools_request_ms_bucket{{route="{route}",le="{bound}"}} {total}')
            lines.append(f'tools_request_ms_sum{{route="{route}"}} {self._total_ms[route]:.3f}')
            lines.append(f'tools_request_ms_count{{route="{route}"}} {total}')
        cache = parts.cache
        lines.append("# TYPE tools_cache_total counter")
        for name in ("hits", "misses", "shared", "read_errors", "write_errors"):
            lines.append(f'tools_cache_total{{outcome="{name}"}} {getattr(cache, name)}')
        lines.append("# TYPE tools_backend_calls_total counter")
        for kind, chain in (("text", parts.text), ("image", parts.image)):
            for backend in chain.backends:
                for outcome, count in sorted(backend.calls.items()):
                    labels = f'kind="{kind}",backend="{backend.name}",outcome="{outcome}"'
                    lines.append(f"tools_backend_calls_total{{{labels}}} {count}")
        if parts.reader is not None:
            lines.append("# TYPE tools_pages_total counter")
            for outcome, count in sorted(parts.reader.outcomes.items()):
                lines.append(f'tools_pages_total{{outcome="{outcome}"}} {count}')
        if spent is not None:
            lines += ["# TYPE tools_spent_calls gauge", f"tools_spent_calls {spent['calls']}"]
            lines += ["# TYPE tools_spent_usd gauge", f"tools_spent_usd {spent['usd']:.6f}"]
        return "\n".join(lines) + "\n"
