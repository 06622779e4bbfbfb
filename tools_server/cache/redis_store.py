"""The store in Redis or Valkey: any number of servers share answers, spending, and who fetches what (extra `redis`)."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncIterator, Awaitable
from typing import Any

from mmsearch_jax.core.errors import ConfigError
from tools_server.cache.store import Allowance, CacheEntry, Spent, StoreError

_TIMEOUT_S = 3.0

# Check and add in one step: two servers must not both spend the last call.
_BOOK = """
local calls = tonumber(redis.call('HGET', KEYS[1], 'calls') or '0')
local money = tonumber(redis.call('HGET', KEYS[1], 'micro_usd') or '0')
local max_calls, max_money, price = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
if (max_calls > 0 and calls + 1 > max_calls) or (max_money > 0 and money + price > max_money) then return 0 end
redis.call('HINCRBY', KEYS[1], 'calls', 1)
redis.call('HINCRBY', KEYS[1], 'micro_usd', price)
return 1
"""


class RedisStore:
    """A store at an address like `redis://host:6379/0`; the password may be part of it.

    Args:
      prefix: put before every key.
      ttl_s: Redis drops answers after this time; 0 keeps them.

    Raises:
      ConfigError: the address cannot be read.
    """

    def __init__(self, url: str, prefix: str = "mmsearch:", ttl_s: float = 0.0):
        # Imported here because only a cache in Redis needs the package of the extra.
        from redis import exceptions
        from redis.asyncio import Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        try:
            self._redis: Any = Redis.from_url(
                url,
                decode_responses=True,
                socket_connect_timeout=_TIMEOUT_S,
                socket_timeout=_TIMEOUT_S,
                retry=Retry(NoBackoff(), 1),  # a request has one deadline for all its steps
            )
        except ValueError as error:
            raise ConfigError(
                "cache.redis_url_env must name a variable that holds an address such as redis://HOST:6379/0"
            ) from error
        self._error = exceptions.RedisError
        self._prefix, self._ttl_ms = prefix, int(ttl_s * 1000)
        self._book = self._redis.register_script(_BOOK)

    async def get(self, key: str) -> CacheEntry | None:
        """See `Store`."""
        kept = await self._asked(self._redis.get(f"{self._prefix}entry:{key}"))
        return None if kept is None else CacheEntry(**json.loads(kept))

    async def put(self, key: str, entry: CacheEntry) -> None:
        """See `Store`. Whether it survives a restart of Redis depends on Redis' own settings (appendonly)."""
        value = json.dumps(dataclasses.asdict(entry), ensure_ascii=False)
        await self._asked(self._redis.set(f"{self._prefix}entry:{key}", value, px=self._ttl_ms or None))

    async def claim(self, key: str, seconds: float) -> bool:
        """See `Store`."""
        claim = self._redis.set(f"{self._prefix}claim:{key}", "1", nx=True, px=max(1, int(seconds * 1000)))
        return bool(await self._asked(claim))

    async def release(self, key: str) -> None:
        """See `Store`."""
        await self._asked(self._redis.delete(f"{self._prefix}claim:{key}"))

    async def book(self, run: str, backend: str, micro_usd: int, allowance: Allowance) -> bool:
        """See `Store`. Redis keeps one sum per run, not one per backend."""
        arguments = [allowance.max_calls, allowance.max_micro_usd, micro_usd]
        return bool(await self._asked(self._book(keys=[self._spending(run)], args=arguments)))

    async def unbook(self, run: str, backend: str, micro_usd: int) -> None:
        """See `Store`."""
        await self._asked(self._redis.hincrby(self._spending(run), "micro_usd", -micro_usd))

    async def spent(self, run: str) -> Spent:
        """See `Store`."""
        kept = await self._asked(self._redis.hgetall(self._spending(run)))
        return Spent(int(kept.get("calls", 0)), int(kept.get("micro_usd", 0)))

    async def entries(self) -> AsyncIterator[tuple[str, CacheEntry]]:
        """See `Store`; in no order."""
        start = f"{self._prefix}entry:"
        async for name in self._redis.scan_iter(match=f"{start}*", count=1000):
            key = name.removeprefix(start)
            entry = await self.get(key)
            if entry is not None:
                yield key, entry

    async def close(self) -> None:
        """See `Store`."""
        await self._redis.aclose()

    async def _asked(self, command: Awaitable[Any]) -> Any:
        try:
            return await command
        except (self._error, OSError) as error:
            raise StoreError(f"Redis: {type(error).__name__}") from error

    def _spending(self, run: str) -> str:
        return f"{self._prefix}spending:{run}"
