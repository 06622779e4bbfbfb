"""The tools over the Model Context Protocol, with the package's client: over stdio, over HTTP, and in this process."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from mcp import Client, StdioServerParameters
from mcp_types import CallToolResult
from PIL import Image

from mmsearch_jax.core.search_api import SearchReply, SearchResult
from mmsearch_jax.jobs.search_server import start_server
from mmsearch_jax.rollout.tool_client import ToolClient
from mmsearch_jax.serving.mcp import MAX_IMAGE_BYTES, as_text, make_server
from tests.tools_server.small_corpus import encode, scene, write_corpus

ROOT = Path(__file__).parents[2]
SCENE, BOXES = scene("Flag of Velmora", "Flag of New Velmora")
ENCODED = encode(SCENE, "PNG")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with start_server(write_corpus(tmp_path_factory.mktemp("world") / "corpus")) as server:
        yield server.url


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "mmsearch_jax.commands.main", "serve-mcp", *arguments]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=60, check=False, env=environment)


def over_stdio(url: str, talk: Callable[[Client], Coroutine[Any, Any, None]]) -> None:
    program, *arguments = command("--tools-url", url)

    async def go() -> None:
        parameters = StdioServerParameters(command=program, args=arguments, env={"PYTHONPATH": str(ROOT)})
        async with asyncio.timeout(60), Client(parameters) as client:
            await talk(client)

    asyncio.run(go())


def in_process(url: str, talk: Callable[[Client], Coroutine[Any, Any, None]], **own: Any) -> None:
    async def go() -> None:
        client = ToolClient(url, deadline_s=own.pop("deadline_s", 20.0), max_retries=0)
        async with Client(make_server(client, own.pop("may_read_files", True))) as asking:
            await talk(asking)

    asyncio.run(go())


@pytest.fixture(scope="module")
def http_address(url: str) -> Iterator[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    arguments = command("--tools-url", url, "--http", "--port", "0")
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def text_of(result: CallToolResult) -> str:
    return "\n".join(part.text for part in result.content if part.type == "text")


def test_a_host_finds_three_tools_and_what_they_take(url: str):
    async def talk(client: Client) -> None:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == {"text_search", "image_search", "ground"}
        assert tools["text_search"].input_schema["required"] == ["query"]
        assert tools["image_search"].input_schema["required"] == ["image"]
        assert set(tools["ground"].input_schema["required"]) == {"image", "expression"}
        assert "base64" in tools["ground"].input_schema["properties"]["image"]["description"]
        assert all(tool.description and tool.annotations and tool.annotations.read_only_hint for tool in tools.values())

    in_process(url, talk)


def test_a_host_is_told_the_form_of_the_replies_and_they_have_it(url: str):
    calls = {
        "text_search": {"query": "Velmora capital", "top_k": 2.0},
        "image_search": {"image": ENCODED, "expression": "the flag on the right"},
        "ground": {"image": ENCODED, "expression": "the flag on the left"},
    }

    async def talk(client: Client) -> None:
        for tool in (await client.list_tools()).tools:
            assert tool.output_schema is not None
            assert set(tool.output_schema["properties"]) == {field.name for field in dataclasses.fields(SearchReply)}
            assert set(tool.output_schema["required"]) == {"results", "tool"}
            found = await client.call_tool(tool.name, calls[tool.name])
            assert not found.is_error, text_of(found)
            jsonschema.validate(found.structured_content, tool.output_schema)

    in_process(url, talk)


def test_grounding_that_finds_nothing_says_so_and_speaks_of_no_search(url: str):
    bare = encode(Image.new("RGB", (320, 240), (110, 120, 90)), "PNG")

    async def talk(client: Client) -> None:
        found = await client.call_tool("ground", {"image": bare, "expression": "the flag on the left"})
        assert text_of(found) == "No such region was found."
        reply = SearchReply.from_json(found.structured_content)
        assert (reply.status, reply.box, reply.grounded, reply.results) == ("no_detection", None, False, ())

    in_process(url, talk)


def test_all_three_answer_over_stdio(url: str, tmp_path: Path):
    picture = tmp_path / "scene.png"
    SCENE.save(picture)

    async def talk(client: Client) -> None:
        pages = await client.call_tool("text_search", {"query": "Velmora capital", "top_k": 1})
        assert not pages.is_error
        assert "[1] Velmora\nhttps://x.example/velmora\nCapital: Ostrin" in text_of(pages)
        assert SearchReply.from_json(pages.structured_content).results[0].title == "Velmora"

        expression = "the flag on the right"
        crops = await client.call_tool("image_search", {"image": str(picture), "expression": expression, "top_k": 1})
        reply = SearchReply.from_json(crops.structured_content)
        assert (reply.results[0].title, reply.results[0].thumbnail_base64) == ("Flag of New Velmora", None)

        found = await client.call_tool(
            "ground", {"image": f"data:image/png;base64,{ENCODED}", "expression": expression}
        )
        box = SearchReply.from_json(found.structured_content).box
        assert box is not None
        assert max(abs(a - b) for a, b in zip(box, BOXES[1], strict=True)) <= 3
        assert text_of(found).startswith(f"Region: {box[0]}, {box[1]}")

    over_stdio(url, talk)


def test_the_same_over_http_but_no_files_of_this_machine(http_address: str, tmp_path: Path):
    picture = tmp_path / "scene.png"
    SCENE.save(picture)

    async def go() -> None:
        async with Client(http_address) as client:
            found = await client.call_tool("ground", {"image": ENCODED, "expression": "the flag on the left"})
            assert SearchReply.from_json(found.structured_content).grounded
            refused = await client.call_tool("ground", {"image": str(picture), "expression": "the flag"})
            assert refused.is_error
            assert "bad_image: not base64" in text_of(refused)

    asyncio.run(go())


def test_an_image_larger_than_the_packages_own_bound_goes_through_over_http(http_address: str):
    large = base64.b64encode(base64.b64decode(ENCODED) + b"\0" * (6 * 2**20)).decode()

    async def go() -> None:
        async with Client(http_address) as client:
            found = await client.call_tool("ground", {"image": large, "expression": "the flag on the left"})
            assert not found.is_error

    asyncio.run(go())


@pytest.mark.parametrize("file_reading", [True, False])
def test_addresses_are_not_fetched(url: str, file_reading: bool):
    async def talk(client: Client) -> None:
        refused = await client.call_tool("image_search", {"image": "http://169.254.169.254/latest"})
        assert refused.is_error
        assert "bad_image: URLs are not fetched" in text_of(refused)

    in_process(url, talk, may_read_files=file_reading)


def test_a_file_that_is_too_large_is_not_read(url: str, tmp_path: Path):
    huge = tmp_path / "huge.png"
    with huge.open("wb") as file:
        file.truncate(MAX_IMAGE_BYTES + 1)

    async def talk(client: Client) -> None:
        refused = await client.call_tool("image_search", {"image": str(huge)})
        assert "has 12,582,913 bytes, the limit is 12,582,912" in text_of(refused)

    in_process(url, talk)


def test_short_base64_is_not_taken_for_the_name_of_a_file(url: str):
    small = encode(SCENE.resize((80, 60)), "JPEG")
    assert 255 < len(small) < 4096

    async def talk(client: Client) -> None:
        assert not (await client.call_tool("image_search", {"image": small})).is_error

    in_process(url, talk)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("aGVsbG8=", "the image is not an image"),
        ("no such file.png", "bad_image: no file of this name"),
        ("~nobody-here/a.png", "bad_image: no file of this name"),
        ("data:image/png;base64,!!", "bad_image"),
    ],
)
def test_a_bad_image_is_a_tool_error_that_says_so(url: str, image: str, words: str):
    async def talk(client: Client) -> None:
        refused = await client.call_tool("image_search", {"image": image})
        assert refused.is_error
        assert words in text_of(refused)
        assert text_of(refused).startswith("bad_image: ")

    in_process(url, talk)


def test_arguments_out_of_range_are_tool_errors(url: str):
    async def talk(client: Client) -> None:
        for arguments in ({"query": "a", "top_k": 0}, {"query": ""}, {}):
            assert (await client.call_tool("text_search", arguments)).is_error

    in_process(url, talk)


def test_a_tools_server_that_is_not_there_is_a_typed_tool_error():
    async def talk(client: Client) -> None:
        failed = await client.call_tool("text_search", {"query": "a"})
        assert failed.is_error
        assert "unavailable: no search server at http://127.0.0.1:9" in text_of(failed)

    in_process("http://127.0.0.1:9", talk)


def test_a_tools_server_that_hangs_is_a_typed_tool_error():
    with socket.create_server(("127.0.0.1", 0)) as silent:

        async def talk(client: Client) -> None:
            failed = await client.call_tool("text_search", {"query": "a"})
            assert "timeout: " in text_of(failed)

        in_process(f"http://127.0.0.1:{silent.getsockname()[1]}", talk, deadline_s=0.2)


def test_the_token_of_the_tools_server_comes_from_the_environment(tmp_path: Path):
    """A server that requires a token, started from the command line."""
    port_file = tmp_path / "port"
    arguments = ["--corpus", str(write_corpus(tmp_path / "corpus")), "--port", "0", "--port-file", str(port_file)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TOOLS_TOKEN": "s3cret"}
    server = subprocess.Popen(
        [sys.executable, "-m", "tools_server", *arguments, "--config.token_env=TOOLS_TOKEN"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        url = server.stdout.readline().strip()

        async def ask() -> CallToolResult:
            program, *rest = command("--tools-url", url, "--token-env", "TOOLS_TOKEN")
            env = {"PYTHONPATH": str(ROOT), "TOOLS_TOKEN": "s3cret"}
            async with (
                asyncio.timeout(60),
                Client(StdioServerParameters(command=program, args=rest, env=env)) as client,
            ):
                return await client.call_tool("text_search", {"query": "velmora"})

        async def without(client: Client) -> None:
            assert "not_authorised" in text_of(await client.call_tool("text_search", {"query": "velmora"}))

        assert not asyncio.run(ask()).is_error
        in_process(url, without)
    finally:
        server.terminate()
        server.wait(20)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--tools-url", "localhost"), "--tools-url is 'localhost': give an address"),
        (("--token-env", "NO_SUCH_VARIABLE"), "NO_SUCH_VARIABLE, which is not set"),
        (("--deadline", "0"), "--deadline must be above 0"),
    ],
)
def test_a_wrong_argument_is_one_line_and_code_2(arguments: tuple[str, ...], words: str):
    result = run(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_port_in_use_is_one_line_and_code_2():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run("--http", "--port", str(port))
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: port {port} on 127.0.0.1 is in use")


def test_the_text_has_the_note_the_region_the_summary_and_the_sources():
    hit = SearchResult("Velmora", "Capital: Ostrin", "https://x.example")
    reply = SearchReply((hit,), "image_search", box=(1, 2, 3, 4), note="Look again.", summary="A flag.")
    assert as_text(reply) == (
        "Look again.\n\nRegion: 1, 2, 3, 4 (x0, y0, x1, y1 in pixels)\n\nA flag.\n\n"
        "[1] Velmora\nhttps://x.example\nCapital: Ostrin"
    )
    assert as_text(SearchReply((), "text_search")) == "No results."


def test_the_server_loads_no_accelerator_library():
    code = "import mmsearch_jax.serving.mcp, sys, json; print(json.dumps([m for m in ('jax', 'torch') if m in sys.modules]))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert json.loads(result.stdout) == []
