"""What the stages of a run share, from a config and a work folder: worlds, tools, engine, policy; and one question asked.

`training.py` and `evaluating.py` build on it, and the quickstart does it all. Below this module functions take arguments,
not configs.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np
import tqdm

from mmsearch_jax.core.config_files import as_arguments, secret
from mmsearch_jax.core.trajectory import Trajectory
from mmsearch_jax.data.chat import ChatRenderer
from mmsearch_jax.data.storage import read_rows
from mmsearch_jax.evaluation.ask import EpisodePrinter
from mmsearch_jax.images import image_urls
from mmsearch_jax.images.processing import load_image
from mmsearch_jax.jobs.search_server import start_server
from mmsearch_jax.miniworld import build
from mmsearch_jax.models.axes import Placement, placement
from mmsearch_jax.models.policies import Policy, load_policy
from mmsearch_jax.rollout.engine import Engine
from mmsearch_jax.rollout.episode import EpisodeConfig
from mmsearch_jax.rollout.live_episode import LiveEpisode
from mmsearch_jax.rollout.placement import host_mesh
from mmsearch_jax.rollout.sampling import SamplingParams
from mmsearch_jax.rollout.scheduler import EpisodeRequest, run_episodes_sync
from mmsearch_jax.rollout.sequence import EngineConfig
from mmsearch_jax.rollout.tool_client import ToolClient

TRAINING_WORLD, EVALUATION_WORLD = "train", "real"
_READY_S = 5.0


def prepare_world(config: ml_collections.ConfigDict, workdir: Path, name: str) -> Path:
    """The folder of a mini-world, built in `workdir`/worlds unless it is there from the same settings."""
    folder = workdir / "worlds" / name
    world = config.world
    keys = ("num_lands", "num_grpo_lands", "num_sft_rows", "num_grpo_rows", "grpo_free_share")
    sizes = {key: world[key] for key in keys} if name == TRAINING_WORLD else {"num_rows": world.num_eval_rows}
    settings = {**sizes, "seed": config.seed}
    stamp = folder / "settings.json"
    if stamp.is_file() and json.loads(stamp.read_text(encoding="utf-8")) == settings:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    maker = build.build_training_world if name == TRAINING_WORLD else build.build_evaluation_world
    maker(folder, **settings)
    stamp.write_text(json.dumps(settings), encoding="utf-8")
    return folder


@contextmanager
def tools(config: ml_collections.ConfigDict, world: Path) -> Iterator[str]:
    """The address of the search server: the config's, or one that runs over the world's corpus for the block.

    Raises:
      ToolUnavailable: nothing answers at the config's address (said before anything slow starts).
    """
    if config.tools.url:
        asyncio.run(check_ready(tool_client(config, config.tools.url)))
        yield config.tools.url
        return
    with start_server(world / "corpus") as server:
        yield server.url


async def check_ready(client: ToolClient) -> None:
    """Waits a little until the search server is ready, and closes the client.

    Raises:
      ToolUnavailable: it is not.
    """
    try:
        await client.wait_ready(_READY_S)
    finally:
        await client.close()


def episode_config(config: ml_collections.ConfigDict, **changes: Any) -> EpisodeConfig:
    """The rules of an episode."""
    return EpisodeConfig(**{**as_arguments(config.episode), **changes})


def make_engine(config: ml_collections.ConfigDict, policy: Policy) -> Engine:
    """An engine around a policy."""
    settings = EngineConfig(**as_arguments(config.engine), seed=config.seed)
    return Engine(policy.model, policy.tokenizer, policy.image_processor, settings)


def policy_of(
    config: ml_collections.ConfigDict, param_dtype: Any = np.float32, place: Placement | None = None
) -> Policy:
    """The policy that the config names, computing in its dtype and seeing images at its size.

    Args:
      param_dtype: of the parameters; None keeps what is stored.
      place: where each parameter goes; by default over the chips of this host that the engine uses, so that none of them need
        have room for all.
    """
    place = place or placement(host_mesh(config.engine.get("tensor", EngineConfig.tensor)))
    policy = load_policy(config.checkpoint, np.dtype(config.dtype), param_dtype, place)
    if not config.max_pixels:
        return policy
    # What the checkpoint was made for is never exceeded.
    max_pixels = min(config.max_pixels, policy.image_processor.max_pixels)
    return dataclasses.replace(
        policy, image_processor=dataclasses.replace(policy.image_processor, max_pixels=max_pixels)
    )


def tool_client(config: ml_collections.ConfigDict, url: str) -> ToolClient:
    """A client of the search server.

    Raises:
      ConfigError: `tools.token_env` names a variable that is not set.
    """
    tools = config.tools
    token = secret(tools.token_env, "config.tools.token_env")
    return ToolClient(url, tools.deadline_s, max_concurrency=tools.max_concurrency, token=token)


def run_conversations(config: ml_collections.ConfigDict, workdir: Path, url: str, policy: Policy) -> Path:
    """SFT conversations by the teacher with the live tools; made once per world."""
    world = prepare_world(config, workdir, TRAINING_WORLD)
    out = world / "conversations" / "rows.jsonl"
    if out.is_file():
        return out
    rows = read_rows(world / "sft")
    with tqdm.tqdm(total=len(rows), desc="teacher", unit="row") as bar:

        async def work() -> None:
            client = tool_client(config, url)
            try:
                counts = await build.write_conversations(
                    rows, out, client, episode_config(config), ChatRenderer(policy.tokenizer), bar.update
                )
            finally:
                await client.close()
            bar.write(f"conversations: {dict(counts)}")

        asyncio.run(work())
    return out


def read_image_argument(image: str | Path) -> bytes:
    """The encoded image at a path or a URL.

    Raises:
      ImageError: it cannot be read, or is no image.
    """
    if str(image).startswith(image_urls.SCHEMES):
        encoded = image_urls.read_url(str(image))
        load_image(encoded)
        return encoded
    load_image(image)
    return Path(image).read_bytes()


def run_ask(
    config: ml_collections.ConfigDict,
    workdir: Path,
    encoded: bytes,
    question: str,
    printer: EpisodePrinter | None = None,
) -> Trajectory:
    """Asks one question about one encoded image, with the tools over the real mini-world unless `tools.url` names others.

    Args:
      printer: told of the episode as it goes.
    """
    policy = policy_of(config)
    small = config.copy_and_resolve_references()
    with small.unlocked():
        small.engine.update({"num_slots": 1, "extend_rows": (1,), "decode_rows": ()})
    engine = make_engine(small, policy)
    sampling = SamplingParams(temperature=config.eval.temperature)
    request = EpisodeRequest("ask", "ask", question, encoded, config.seed, sampling)

    def watch(run: LiveEpisode) -> None:
        if printer is not None:
            printer.update(run.episode.trajectory)
            if not run.episode.done and not run.parked:
                printer.writing(engine.renderer.decode(run.sequence.new_ids))

    world = Path() if config.tools.url else prepare_world(config, workdir, EVALUATION_WORLD)
    with tools(config, world) as url:
        rules = episode_config(config, mode=config.eval.mode)
        return run_episodes_sync(engine, [request], rules, tool_client(config, url), watch=watch)[0]
