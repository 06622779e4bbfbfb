"""Counts of what the server did, in Prometheus' text format. Knows nothing of what the routes do."""

from __future__ import annotations

import bisect
from collections import Counter

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

    def render(self) -> str:
        """The page that a scraper reads."""
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
        return "\n".join(lines) + "\n"
