"""The search server that a job uses, and the token that it sends."""

import asyncio
from pathlib import Path

import pytest
from aiohttp.test_utils import TestServer

from mmsearch_jax.core.errors import ConfigError, ToolFailed
from mmsearch_jax.jobs.search_tools import tool_client
from mmsearch_jax.settings.rollout import ToolsConfig
from tests.tools_server.server_config import default_config, settings_of
from tests.tools_server.small_corpus import write_corpus
from tools_server.assembly import assemble
from tools_server.http_app import create_app


def test_a_search_server_that_asks_for_a_token_is_sent_the_one_that_the_environment_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TOOLS_TOKEN", "s3cret")
    server = default_config()
    server.corpus, server.token_env = str(write_corpus(tmp_path / "corpus")), "TOOLS_TOKEN"
    assembly = assemble(settings_of(server))

    async def go() -> None:
        async with TestServer(create_app(assembly.load, assembly.limits, assembly.token)) as running:
            url = str(running.make_url(""))
            client, other = tool_client(ToolsConfig(token_env="TOOLS_TOKEN"), url), tool_client(ToolsConfig(), url)
            assert (await client.text_search("harn")).results
            with pytest.raises(ToolFailed, match="not_authorised.*send the server's token"):
                await other.text_search("harn")
            await client.close()
            await other.close()

    asyncio.run(go())


def test_a_token_that_is_named_and_not_set_is_said_before_the_first_search():
    with pytest.raises(ConfigError, match="tools.token_env names .* NO_SUCH_VARIABLE, which is not set"):
        tool_client(ToolsConfig(token_env="NO_SUCH_VARIABLE"))
