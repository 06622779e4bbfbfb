"""Load from many keep-alive connections, each with one request at a time: requests per second and latencies."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np


@dataclasses.dataclass
class Load:
    """The result of a period of load.

    Attributes:
      seconds: of each request, in the order in which they ended.
      wall_s: from the first request to the last answer.
      statuses: HTTP statuses and how many of each.
    """

    seconds: list[float] = dataclasses.field(default_factory=list)
    wall_s: float = 0.0
    statuses: dict[int, int] = dataclasses.field(default_factory=dict)

    @property
    def seconds_a_request(self) -> float:
        """Requests per second over all connections."""
        return self.wall_s / len(self.seconds)

    def quantile_ms(self, share: float) -> float:
        """A quantile of the latency in milliseconds."""
        return 1e3 * float(np.quantile(self.seconds, share))


async def load(port: int, route: str, body_of: Callable[[int], Any], connections: int, requests: int) -> Load:
    """Posts `body_of(i)` for i in range(requests) over so many connections to this machine.

    The client writes and reads HTTP by hand: on two cores a full client would be the slower half.
    """
    done, numbers = Load(), iter(range(requests))

    async def connection() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in numbers:
            data = json.dumps(body_of(number)).encode()
            head = f"POST {route} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
            began = time.perf_counter()
            writer.write(head.encode() + data)
            status = await _answer(reader)
            done.seconds.append(time.perf_counter() - began)
            done.statuses[status] = done.statuses.get(status, 0) + 1
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(connection() for _ in range(connections)))
    done.wall_s = time.perf_counter() - began
    return done


async def _answer(reader: asyncio.StreamReader) -> int:
    """Reads one answer to its end and returns its status."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    await reader.readexactly(int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0]))
    return int(head.split(b" ", 2)[1])
