"""One call to an external HTTP service, with a limit on bytes and typed failures. Independent of providers.

No message made here contains a URL, a header or an exception's own text: those can contain the key.
"""

from __future__ import annotations

import dataclasses
import email.utils
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import aiohttp

from mmsearch_jax.core.bounded import read_bounded
from tools_server.failures import SearchFailure

MAX_REPLY_BYTES = 8 * 2**20
_SHOWN = 200


@dataclasses.dataclass(frozen=True)
class UpstreamRequest:
    """A request. With `json` None it has no body."""

    method: str
    url: str
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    params: Mapping[str, str] = dataclasses.field(default_factory=dict)
    json: Any = None


class Sessions:
    """One pooled HTTP session for all backends of a server, opened on first use in the running loop."""

    def __init__(self, max_connections: int = 2048):
        self._max_connections = max_connections
        self._session: aiohttp.ClientSession | None = None

    def get(self) -> aiohttp.ClientSession:
        """The session."""
        if self._session is None or self._session.closed:
            connector = aiohttp.TCPConnector(limit=self._max_connections, ttl_dns_cache=300)
            # Deadlines are set by the caller. Automatic decompression stays on; the limit on bytes applies to its output.
            self._session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None))
        return self._session

    async def close(self) -> None:
        """Closes all connections."""
        if self._session is not None:
            await self._session.close()


Refusal = Callable[[int, str], SearchFailure | None]
"""Recognises a provider's own refusals by status and body; None if the reply is none."""


async def call(
    sessions: Sessions, request: UpstreamRequest, name: str, secret: str, key_env: str, refusal: Refusal
) -> Any:
    """The decoded JSON of a reply with status 200.

    Args:
      name: the service, for messages.
      secret: the key; removed from every message.
      key_env: the variable with the key, for the message if the key is refused.
      refusal: the provider's own refusals, checked first.

    Raises:
      SearchFailure: anything else.
    """
    try:
        async with sessions.get().request(
            request.method,
            request.url,
            headers=request.headers,
            params=request.params,
            json=request.json,
            allow_redirects=False,
        ) as reply:
            body = await read_bounded(reply, MAX_REPLY_BYTES)
            status, retry_after = reply.status, reply.headers.get("Retry-After", "")
    except (aiohttp.ClientError, OSError, ValueError) as error:
        # Only the exception's type: its text may contain the URL, and with it the key.
        raise SearchFailure("upstream_error", f"{name}: {type(error).__name__}: no answer", passing=True) from None
    if body is None:
        raise SearchFailure("upstream_error", f"{name}: the reply is larger than {MAX_REPLY_BYTES:,} bytes")
    shown = redact(body[:_SHOWN].decode("utf-8", "replace"), secret)
    own = refusal(status, body[:4096].decode("utf-8", "replace"))
    if own is not None:
        raise own
    if status != 200:
        raise _refused(name, status, shown, key_env, seconds(retry_after))
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise SearchFailure("upstream_error", f"{name}: the reply is not JSON: {shown!r}", passing=True) from error


def redact(text: str, secret: str) -> str:
    """The text without the key."""
    return text.replace(secret, "[key]") if secret else text


def seconds(retry_after: str) -> float:
    """A Retry-After header (seconds, or a date) as seconds from now; 0 if it cannot be read."""
    try:
        return max(0.0, min(float(retry_after), 3600.0))
    except ValueError:
        parsed = email.utils.parsedate_tz(retry_after)
    return max(0.0, min(email.utils.mktime_tz(parsed) - time.time(), 3600.0)) if parsed else 0.0


def _refused(name: str, status: int, shown: str, key_env: str, retry_after_s: float) -> SearchFailure:
    if status in (401, 403):
        hint = f"is the key in {key_env} right?" if key_env else "does it need a key?"
        return SearchFailure("not_authorised", f"{name} answered HTTP {status}: {hint} The reply: {shown!r}")
    if status == 402:
        return SearchFailure(
            "out_of_budget", f"{name} answered HTTP 402: the plan's credit is spent. The reply: {shown!r}"
        )
    if status == 429:
        return SearchFailure("rate_limited", f"{name} answered HTTP 429", True, retry_after_s)
    passing = status >= 500 or status == 408
    code = "upstream_timeout" if status in (408, 504) else "upstream_error"
    return SearchFailure(code, f"{name} answered HTTP {status}: {shown!r}", passing, retry_after_s)
