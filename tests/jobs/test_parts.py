"""What the commands have in common."""

import asyncio
from pathlib import Path

import pytest
from aiohttp.test_utils import TestServer

from mmsearch_jax.core.config_files import load_config
from mmsearch_jax.core.errors import ConfigError, ToolFailed
from mmsearch_jax.jobs.parts import tool_client
from tests.rollout.test_placement import finished, run
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
    config = load_config("configs/tiny_sft.py", ["--config.tools.token_env=TOOLS_TOKEN"])
    silent = load_config("configs/tiny_sft.py")

    async def go() -> None:
        async with TestServer(create_app(assembly.load, assembly.limits, assembly.token)) as running:
            url = str(running.make_url(""))
            client, other = tool_client(config, url), tool_client(silent, url)
            assert (await client.text_search("harn")).results
            with pytest.raises(ToolFailed, match="not_authorised.*send the server's token"):
                await other.text_search("harn")
            await client.close()
            await other.close()

    asyncio.run(go())


def test_a_token_that_is_named_and_not_set_is_said_before_the_first_search():
    config = load_config("configs/tiny_sft.py", ["--config.tools.token_env=NO_SUCH_VARIABLE"])
    with pytest.raises(ConfigError, match="config.tools.token_env names .* NO_SUCH_VARIABLE, which is not set"):
        tool_client(config, "http://127.0.0.1:1")


_ON_TWO_CHIPS = """
import jax
from flax import nnx
from mmsearch_jax.core.config_files import load_config
from mmsearch_jax.jobs.parts import policy_of

config = load_config("configs/eval/deepmmsearch.py", ["--config.engine.tensor=2"])
policy = policy_of(config)
whole = sum(leaf.nbytes for leaf in jax.tree.leaves(nnx.state(policy.model)))
on_one = sum(leaf.addressable_data(0).nbytes for leaf in jax.tree.leaves(nnx.state(policy.model)))
print(on_one / whole)
"""


def test_a_policy_that_is_sampled_from_is_read_onto_the_chips_of_its_engine():
    assert float(finished(run(_ON_TWO_CHIPS, 2)).splitlines()[-1]) < 0.6
