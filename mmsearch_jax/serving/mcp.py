"""The three tools over the Model Context Protocol, for any agent: a thin adapter over the tools server's client.

Each call becomes one request to a tools server, which searches, caches, limits and pays. This process has no cache and
no keys. It uses the official `mcp` package, version 2.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import dataclasses
import errno
import socket
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Annotated, Any

import uvicorn
from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError as CallError
from mcp_types import CallToolResult, TextContent, ToolAnnotations
from pydantic import Field

from mmsearch_jax import __version__
from mmsearch_jax.core.errors import PortInUse, ToolError, ToolRefused, ToolTimeout, ToolUnavailable
from mmsearch_jax.core.search_api import SearchReply
from mmsearch_jax.rollout.tool_client import ToolClient

MAX_IMAGE_BYTES = 12 * 2**20
"""Size limit of the tools server for an encoded image, in bytes."""
_MAX_BODY_BYTES = 2 * MAX_IMAGE_BYTES
_HOST = "127.0.0.1"
_READS_ONLY = ToolAnnotations(read_only_hint=True, open_world_hint=True)

EncodedImage = Annotated[
    str, Field(description="The image (JPEG, PNG, WebP): a data: URL or base64; over stdio also a path.", min_length=1)
]
TopK = Annotated[int, Field(description="Number of results.", ge=1, le=20)]
Answered = Annotated[CallToolResult, SearchReply]
"""A result whose structured content is a `SearchReply`: hosts are told its schema."""
Expression = Annotated[
    str, Field(description="A description of the object or region: 'the flag on the left'.", min_length=1)
]


def make_server(client: ToolClient, may_read_files: bool) -> MCPServer:
    """A server with the tools `text_search`, `image_search` and `ground`.

    Args:
      client: client of the tools server; closed when this server ends.
      may_read_files: whether an image may be given by its path. This is safe only if the caller is this machine's user
        (stdio), not over a network.
    """

    @contextlib.asynccontextmanager
    async def closing(_: MCPServer) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await client.close()

    server = MCPServer(
        "mmsearch",
        version=__version__,
        lifespan=closing,
        log_level="WARNING",
        instructions="Searches the web by text, by a whole image, or by a described part of an image.",
    )

    @server.tool(annotations=_READS_ONLY)
    async def text_search(
        query: Annotated[str, Field(description="The search query.", min_length=1)],
        top_k: TopK = 5,
        question: Annotated[str, Field(description="The question to answer; used to condense the results.")] = "",
    ) -> Answered:
        """Searches the web for pages."""
        return await _answered(client.text_search(query, top_k, question))

    @server.tool(annotations=_READS_ONLY)
    async def image_search(
        image: EncodedImage,
        expression: Annotated[
            str | None, Field(description="A description of the part to search; null searches the whole image.")
        ] = None,
        top_k: TopK = 5,
    ) -> Answered:
        """Finds web pages that show an image, or the described part of it."""

        async def search() -> SearchReply:
            return await client.image_search(await read_image(image, may_read_files), expression, top_k)

        return await _answered(search(), "bad_image")

    @server.tool(annotations=_READS_ONLY)
    async def ground(image: EncodedImage, expression: Expression) -> Answered:
        """Finds the box of a described object or region: x0, y0, x1, y1 in pixels of the image turned upright."""

        async def find() -> SearchReply:
            return await client.ground(await read_image(image, may_read_files), expression)

        return await _answered(find(), "bad_image")

    return server


def serve_stdio(client: ToolClient) -> None:
    """Serves over standard input and output until the host process closes them."""
    make_server(client, may_read_files=True).run("stdio")


def serve_http(client: ToolClient, port: int) -> None:
    """Serves streamable HTTP on this machine until a signal arrives; prints the address. Port 0 chooses a free port.

    Raises:
      PortInUse: the port is taken.
    """
    server = make_server(client, may_read_files=False)
    app = server.streamable_http_app(max_request_body_size=_MAX_BODY_BYTES, host=_HOST)
    try:
        listening = socket.create_server((_HOST, port))
    except OSError as error:
        why = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be opened: {error.strerror}"
        raise PortInUse(f"port {port} on {_HOST} {why}: choose another with --port, or 0 for a free one") from error
    with listening:
        print(f"http://{_HOST}:{listening.getsockname()[1]}/mcp", flush=True)
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])


async def read_image(image: str, may_read_files: bool) -> bytes:
    """The encoded image of an argument: a path, a data URL or base64.

    Raises:
      CallError: the argument is none of these, or may not be read.
    """
    if image.startswith(("http://", "https://")):
        raise CallError("bad_image: URLs are not fetched: send the image itself, as a data: URL or base64")
    if may_read_files and not image.startswith("data:"):
        read = await asyncio.to_thread(_read_file, image)
        if read is not None:
            return read
    encoded = image.partition(",")[2] if image.startswith("data:") else image
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        known = "no file of this name, and not base64" if may_read_files else "not base64"
        raise CallError(f"bad_image: {known}: {image[:60]!r}") from error


def _read_file(name: str) -> bytes | None:
    """A file's bytes; None if there is no such file."""
    try:
        path = Path(name).expanduser()
        if not path.is_file():
            return None
        size = path.stat().st_size
        if size > MAX_IMAGE_BYTES:
            raise CallError(f"bad_image: {name} has {size:,} bytes, the limit is {MAX_IMAGE_BYTES:,}")
        return path.read_bytes()
    except PermissionError as error:
        raise CallError(f"bad_image: {name[:200]} cannot be read: {error.strerror}") from error
    except (
        OSError,
        RuntimeError,
    ):  # Base64 text, read as a path, can be too long, or begin with the home folder of an unknown user.
        return None


def _failed(why: str) -> CallToolResult:
    return CallToolResult(content=[TextContent(type="text", text=why)], is_error=True)


async def _answered(call: Awaitable[SearchReply], refused: str = "bad_request") -> CallToolResult:
    try:
        reply = await call
    # Not raised: the library would put its own words before the first one, which clients read.
    except CallError as error:
        return _failed(str(error))
    except ToolUnavailable as error:
        return _failed(f"unavailable: {error}")
    except ToolTimeout as error:
        return _failed(f"timeout: {error}")
    except ToolRefused as error:
        return _failed(f"{refused}: {error.why}")
    except ToolError as error:
        return _failed(f"failed: {error}")
    # Without thumbnails, whose base64 text would fill an agent's context.
    bare = dataclasses.replace(
        reply, results=tuple(dataclasses.replace(result, thumbnail_base64=None) for result in reply.results)
    )
    structured: dict[str, Any] = bare.to_json()
    return CallToolResult(content=[TextContent(type="text", text=as_text(bare))], structured_content=structured)


def as_text(reply: SearchReply) -> str:
    """The text of a reply for a model: note, region, summary, and the results with their sources."""
    lines = [reply.note] if reply.note else []
    if reply.box is not None:
        lines.append(f"Region: {', '.join(str(value) for value in reply.box)} (x0, y0, x1, y1 in pixels)")
    if reply.summary:
        lines.append(reply.summary)
    for i, result in enumerate(reply.results, 1):
        lines.append("\n".join(part for part in (f"[{i}] {result.title}", result.url, result.snippet) if part))
    if not reply.results and reply.tool != "ground":
        lines.append("No results.")
    return "\n\n".join(lines)
