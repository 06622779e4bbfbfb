"""A chat server on a free loopback port, in its own thread, for the duration of a block."""

import asyncio
import contextlib
import dataclasses
import threading
from collections.abc import Iterator
from pathlib import Path

import openai
from aiohttp import web

from mmsearch_jax.models.policies import load_policy
from mmsearch_jax.rollout.engine import Engine
from mmsearch_jax.serving.app import create_app
from mmsearch_jax.serving.service import Service
from mmsearch_jax.settings.rollout import EngineConfig, EpisodeConfig
from mmsearch_jax.settings.serving import ServeConfig

TINY_BASE = Path(__file__).parents[2] / "assets" / "tiny-base"
MODEL = "tiny"
SIZES = EngineConfig(
    num_slots=3,
    max_length=256,
    extend_rows=(2,),
    extend_buckets=(64,),
    decode_rows=(),
    length_buckets=(),
    decode_steps=4,
    top_logprobs=5,
)
RULES = EpisodeConfig(prompt_style="short", max_turn_tokens=64, max_trajectory_tokens=256, observation_max_tokens=60)


def tiny_engine(sizes: EngineConfig = SIZES) -> Engine:
    """A warmed-up engine with the tiny base, for small images."""
    policy = load_policy(TINY_BASE)
    processor = dataclasses.replace(policy.image_processor, max_pixels=112 * 112)
    engine = Engine.of(policy.model, policy.tokenizer, processor, sizes)
    engine.warm_up()
    return engine


@dataclasses.dataclass
class Live:
    """A running server."""

    url: str
    service: Service
    engine: Engine

    def client(self, **settings) -> openai.OpenAI:
        """A client without retries."""
        return openai.OpenAI(
            **{"base_url": self.url + "/v1", "api_key": "none", "max_retries": 0, "timeout": 60, **settings}
        )


@contextlib.contextmanager
def serving(
    engine: Engine, *, tools=None, rules: EpisodeConfig = RULES, limits: ServeConfig | None = None, token: str = ""
) -> Iterator[Live]:
    """Runs the server."""
    started, box = threading.Event(), {}

    async def main() -> None:
        service = Service(engine, MODEL, rules, tools, limits or ServeConfig())
        runner = web.AppRunner(create_app(service, token), handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        box.update(url=f"http://127.0.0.1:{runner.addresses[0][1]}", service=service, stop=asyncio.Event())
        box["loop"] = asyncio.get_running_loop()
        work = asyncio.create_task(service.run())
        started.set()
        await box["stop"].wait()
        await runner.cleanup()
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    assert started.wait(30)
    try:
        yield Live(box["url"], box["service"], engine)
    finally:
        box["loop"].call_soon_threadsafe(box["stop"].set)
        thread.join(30)
        assert not thread.is_alive()
