"""A circuit breaker: stops calls to an upstream that almost always fails, and tries it again after a pause."""

from __future__ import annotations

import collections
import time
from collections.abc import Callable


class Resting(Exception):
    """The breaker is open.

    Args:
      rest_s: seconds until the next call may be made.
    """

    def __init__(self, rest_s: float):
        super().__init__(rest_s)
        self.rest_s = rest_s


class CircuitBreaker:
    """Opens when almost all of the latest calls failed. After a pause it lets one call through (half-open) and closes if that
    call succeeds.

    It counts the share of failures, not consecutive failures: an upstream that answers every second call is worth its retries.

    Args:
      window: number of latest calls that count; 0 never opens.
      failing_share: opens when at least this share of a full window failed.
      rest_s: how long it stays open.
      clock: monotonic seconds.
    """

    def __init__(self, window: int, failing_share: float, rest_s: float, clock: Callable[[], float] = time.monotonic):
        self._failing_share, self._rest_s, self._clock = failing_share, rest_s, clock
        self._outcomes: collections.deque[bool] = collections.deque(maxlen=window)
        self._open_until: float | None = None
        self._probing = False

    @property
    def state(self) -> str:
        """ "closed", "open" or "half-open"."""
        if self._open_until is None:
            return "closed"
        return "half-open" if self._probing or self._clock() >= self._open_until else "open"

    def admit(self) -> bool:
        """Lets a call through; returns whether it is the one that decides if the breaker closes.

        Raises:
          Resting: no call may be made now.
        """
        if self._open_until is None:
            return False
        left = self._open_until - self._clock()
        if left > 0 or self._probing:
            raise Resting(max(left, 0.0) or self._rest_s)
        self._probing = True
        return True

    def record(self, succeeded: bool, probe: bool) -> None:
        """Records how a call that was let through ended; `probe` is what `admit` returned."""
        if probe:
            self._probing = False
            self._outcomes.clear()
            self._open_until = None if succeeded else self._clock() + self._rest_s
        elif self._open_until is None:  # else the call began before the breaker opened and gives no new information
            self._outcomes.append(succeeded)
            full = self._outcomes.maxlen and len(self._outcomes) == self._outcomes.maxlen
            if full and self._outcomes.count(False) >= self._failing_share * len(self._outcomes):
                self._open_until = self._clock() + self._rest_s

    def forget(self, probe: bool) -> None:
        """Records that a call that was let through was cancelled."""
        if probe:
            self._probing = False
