"""Serves an aiohttp application on a socket until a signal asks it to stop; requests in progress are completed first."""

from __future__ import annotations

import asyncio
import errno
import hmac
import signal
import zlib
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from mmsearch_jax.core.errors import DataError, PortInUse

_COMPRESSED = web.AppKey("compressed", bool)
SHUTDOWN_S = 5.0
"""Seconds in which requests in progress may complete after the signal."""


def has_token(request: web.Request, token: str) -> bool:
    """Whether a request carries the token as `Authorization: Bearer TOKEN`; the scheme may be in any case (RFC 9110)."""
    scheme, _, sent = request.headers.get("Authorization", "").strip().partition(" ")
    # Headers that are not UTF-8 arrive with lone surrogates.
    same = hmac.compare_digest(sent.strip().encode("utf-8", "surrogateescape"), token.encode())
    return same and scheme.lower() == "bearer"


def app_runner(app: web.Application, **options: Any) -> web.AppRunner:
    """A runner of an application whose handlers read bodies with `read_body`, which decompresses them.

    aiohttp would answer a Content-Encoding that it does not know itself, in plain text and with a traceback in the log.
    """
    app[_COMPRESSED] = True
    return web.AppRunner(app, access_log=None, auto_decompress=False, **options)


async def read_body(request: web.Request) -> bytes:
    """The body of a request, decompressed.

    Raises:
      DataError: it is not encoded as its Content-Encoding says, or in a way that is not read.
      web.HTTPRequestEntityTooLarge: it is larger than the application accepts.
    """
    sent = ", ".join(request.headers.getall("Content-Encoding", ()))
    try:
        body = await request.read()
        if not request.app.get(_COMPRESSED) or sent.strip().lower() in ("", "identity"):
            return body
        return await asyncio.to_thread(_decompressed, body, sent, request.client_max_size)
    except (web.RequestPayloadError, aiohttp.ClientPayloadError, HttpProcessingError, zlib.error) as error:
        raise DataError(f"the body cannot be decoded: Content-Encoding says {sent!r}, which it is not") from error


def _decompressed(body: bytes, coding: str, max_bytes: int) -> bytes:
    name = coding.strip().lower()
    if name not in ("gzip", "x-gzip", "deflate"):
        raise DataError(f"Content-Encoding is {coding!r}: send the body as it is, or with gzip or deflate")
    if name == "deflate":
        # Some clients send it without zlib's header.
        wbits = zlib.MAX_WBITS if body[:1] and body[0] & 0xF == 8 else -zlib.MAX_WBITS
    else:
        wbits = 16 + zlib.MAX_WBITS
    whole = b""
    while True:  # a gzip file may have several members
        decoder = zlib.decompressobj(wbits)
        whole += decoder.decompress(body, max_bytes + 1 - len(whole))
        if len(whole) > max_bytes:
            raise web.HTTPRequestEntityTooLarge(max_bytes, len(whole))
        if not decoder.eof:
            raise zlib.error("incomplete")
        body = decoder.unused_data
        if not body:
            return whole


async def serve_app(
    app: web.Application,
    host: str,
    port: int,
    port_file: Path | None = None,
    *,
    stop: asyncio.Event | None = None,
    handler_cancellation: bool = False,
) -> None:
    """Serves an application; returns after SIGINT, SIGTERM or `stop`. Prints the address on one line once it accepts requests.

    Args:
      handler_cancellation: whether a request's handler is cancelled when its client disconnects.

    Raises:
      PortInUse: the port is in use.
    """
    stop = stop or asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    runner = app_runner(app, shutdown_timeout=SHUTDOWN_S, handler_cancellation=handler_cancellation)
    try:
        await runner.setup()
        site = web.TCPSite(runner, host, port)
        try:
            await site.start()
        except OSError as error:
            raise _listen_error(error, host, port) from error
        bound = runner.addresses[0][1]
        if port_file is not None:
            # Written to a temporary file and renamed, so that a reader never sees an incomplete number.
            draft = port_file.with_name(port_file.name + ".part")
            draft.write_text(f"{bound}\n", encoding="ascii")
            draft.rename(port_file)
        print(f"http://{f'[{host}]' if ':' in host else host}:{bound}", flush=True)
        await stop.wait()
    finally:
        await runner.cleanup()


def _listen_error(error: OSError, host: str, port: int) -> PortInUse:
    if error.errno == errno.EADDRINUSE:
        return PortInUse(f"port {port} on {host} is in use: choose another with --port, or 0 for a free one")
    return PortInUse(f"cannot listen on {host}:{port}: {error.strerror or error}; choose another --host or --port")
