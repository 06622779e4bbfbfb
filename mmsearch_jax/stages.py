"""The stages of a run, from a config and a work folder: worlds, SFT, GRPO, evaluation.

Each is what one command does, and the quickstart does them one after the other. Below this module functions take
arguments, not configs.
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

from mmsearch_jax.configuration import as_arguments
from mmsearch_jax.data import image_urls
from mmsearch_jax.data.batches import BatchShape, TokenBatch, TrainingSequence, pack_stream
from mmsearch_jax.data.chat import ChatRenderer
from mmsearch_jax.data.image_processing import load_image
from mmsearch_jax.data.schema import Row
from mmsearch_jax.data.sequences import SequenceBuilder
from mmsearch_jax.data.storage import read_rows
from mmsearch_jax.errors import DataError
from mmsearch_jax.evaluation.evaluate import evaluate
from mmsearch_jax.learners import grpo, supervised
from mmsearch_jax.learners.losses import GRPOLossConfig
from mmsearch_jax.learners.train_state import OptimizerConfig
from mmsearch_jax.miniworld import build, lessons, pretraining
from mmsearch_jax.models.adapters import save_adapter
from mmsearch_jax.models.config import TextConfig, VisionConfig
from mmsearch_jax.models.lora import LoRAConfig, add_lora, lora_layers, merge_lora
from mmsearch_jax.models.policies import Policy, load_policy, save_policy
from mmsearch_jax.models.qwen2_5_vl import Qwen2_5_VL
from mmsearch_jax.rewards.compose import RewardConfig
from mmsearch_jax.rollout.engine import Engine
from mmsearch_jax.rollout.episode import EpisodeConfig
from mmsearch_jax.rollout.sampling import SamplingParams
from mmsearch_jax.rollout.scheduler import EpisodeRequest, run_episodes_sync
from mmsearch_jax.rollout.sequence import EngineConfig
from mmsearch_jax.rollout.tool_client import ToolClient
from mmsearch_jax.trajectory import Trajectory
from tools_server.process import start_server

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
        asyncio.run(_check_ready(tool_client(config, config.tools.url)))
        yield config.tools.url
        return
    with start_server(world / "corpus") as server:
        yield server.url


async def _check_ready(client: ToolClient) -> None:
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


def tool_client(config: ml_collections.ConfigDict, url: str) -> ToolClient:
    """A client of the search server."""
    return ToolClient(url, deadline_s=config.tools.deadline_s)


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


def run_sft(config: ml_collections.ConfigDict, workdir: Path) -> Path:
    """Supervised fine-tuning; returns the trained policy's folder."""
    policy = load_policy(config.checkpoint)
    world = prepare_world(config, workdir, TRAINING_WORLD)
    with tools(config, world) as url:
        conversations = run_conversations(config, workdir, url, policy)
    rows = read_rows(conversations)
    builder = SequenceBuilder(ChatRenderer(policy.tokenizer), policy.model.config)
    style = episode_config(config).prompt_style
    sequences = [builder.conversation(row, style, [policy.image_processor(load_image(row.image))]) for row in rows]
    shape = BatchShape(**config.sft.batch)
    fitting = [sequence for sequence in sequences if len(sequence) <= shape.length]
    if len(fitting) < len(sequences):
        print(
            f"left out: {len(sequences) - len(fitting)} of {len(sequences)} conversations longer than sft.batch.length"
        )
    if not fitting:
        raise DataError(f"every conversation is longer than sft.batch.length {shape.length}: raise it")
    trained = supervised.train(
        _trainable(config, policy).model, _epochs(fitting, shape, config.seed), config.sft.num_steps,
        OptimizerConfig(**config.sft.optimizer), workdir, "sft", seed=config.seed, freeze=tuple(config.sft.freeze),
        checkpoint_every=config.sft.checkpoint_every,
    )  # fmt: skip
    return _save(trained, workdir / "policies" / "sft", policy)


def run_grpo(config: ml_collections.ConfigDict, workdir: Path) -> Path:
    """GRPO with live search; returns the trained policy's folder."""
    policy = _trainable(config, load_policy(config.checkpoint))
    world = prepare_world(config, workdir, TRAINING_WORLD)
    settings = config.grpo
    recipe = grpo.GRPOConfig(
        **{key: settings[key] for key in (
            "num_steps", "prompts_per_step", "group_size", "updates_per_batch", "temperature", "normalise_std",
            "min_group", "skip_uniform",
        )},
        loss=GRPOLossConfig(**settings.loss), reward=RewardConfig(**settings.reward),
    )  # fmt: skip
    with tools(config, world) as url:
        trained = grpo.train(
            policy.model, make_engine(config, policy), read_rows(world / "grpo"), tool_client(config, url), recipe,
            episode_config(config), BatchShape(**settings.batch), OptimizerConfig(**settings.optimizer), workdir,
            seed=config.seed, freeze=tuple(settings.freeze), checkpoint_every=settings.checkpoint_every,
        )  # fmt: skip
    return _save(trained, workdir / "policies" / "grpo", policy)


def run_eval(config: ml_collections.ConfigDict, workdir: Path, rows: list[Row] | None = None) -> dict[str, Any]:
    """One evaluation on the real mini-world; returns its summary."""
    policy = load_policy(config.checkpoint)
    world = prepare_world(config, workdir, EVALUATION_WORLD)
    settings = config.eval
    if rows is None:
        rows = read_rows(world / "eval")
    rows = rows[: settings.limit] if settings.limit else rows
    rules = episode_config(
        config, mode=settings.mode, allow_text=settings.allow_text, allow_image=settings.allow_image,
        allow_crop=settings.allow_crop,
    )  # fmt: skip
    with tools(config, world) as url:
        return evaluate(
            make_engine(config, policy), rows, rules, tool_client(config, url), workdir, settings.name,
            benchmark="miniworld", checkpoint=str(policy.folder), temperature=settings.temperature, seed=config.seed,
        )  # fmt: skip


def _trainable(config: ml_collections.ConfigDict, policy: Policy) -> Policy:
    """The policy as it is trained: with LoRA where the config asks for it, and its remat policy."""
    lora = LoRAConfig(**as_arguments(config.lora))
    model = add_lora(policy.model, lora, config.seed) if lora.rank else policy.model
    model.set_remat(config.remat)
    return dataclasses.replace(policy, model=model)


def _save(trained: Qwen2_5_VL, folder: Path, policy: Policy) -> Path:
    """Writes the policy, LoRA merged, and the adapter alone beside it."""
    if lora_layers(trained):
        save_adapter(trained, folder / "adapter", str(policy.folder))
        trained = merge_lora(trained)
    save_policy(trained, folder, policy.folder)
    return folder


def _epochs(sequences: list[TrainingSequence], shape: BatchShape, seed: int):
    """Batches from a step on: the sequences in a fresh order every epoch, packed."""

    def endless() -> Iterator[TrainingSequence]:
        epoch = 0
        while True:
            for index in np.random.default_rng([seed, epoch]).permutation(len(sequences)):
                yield sequences[int(index)]
            epoch += 1

    def batches(start: int) -> Iterator[TokenBatch]:
        stream = pack_stream(endless(), shape)
        for _ in range(start):
            next(stream)
        yield from stream

    return batches


def run_pretrain(config: ml_collections.ConfigDict, workdir: Path) -> Path:
    """Makes the tiny base; returns its folder."""
    out = Path(config.out)
    pretraining.make_base(
        out, workdir,
        text=TextConfig(**as_arguments(config.text)), vision=VisionConfig(**as_arguments(config.vision)),
        max_pixels=config.max_pixels, shape=BatchShape(**config.batch),
        courses=[_course(course) for _, course in sorted(config.courses.items())],
        num_scenes=config.num_scenes, world_size=config.world_size,
        seed=config.seed, checkpoint_every=config.checkpoint_every,
    )  # fmt: skip
    return out


def _course(config: ml_collections.ConfigDict) -> pretraining.Course:
    parts = [pretraining.Part(part.steps, lessons.Mixture(**part.mixture)) for _, part in sorted(config.parts.items())]
    return pretraining.Course(parts, OptimizerConfig(**config.optimizer))


def run_ask(config: ml_collections.ConfigDict, workdir: Path, image: str | Path, question: str) -> Trajectory:
    """Asks one question about one image, with the tools over the real mini-world unless `tools.url` names others.

    Raises:
      ImageError: the image (a path, or a URL) cannot be read.
    """
    # Before anything slow starts.
    if str(image).startswith(image_urls.SCHEMES):
        encoded = image_urls.read_url(str(image))
        load_image(encoded)
    else:
        load_image(image)
        encoded = Path(image).read_bytes()
    policy = load_policy(config.checkpoint)
    small = config.copy_and_resolve_references()
    with small.unlocked():
        small.engine.update({"num_slots": 1, "extend_rows": (1,), "decode_rows": ()})
    engine = make_engine(small, policy)
    sampling = SamplingParams(temperature=config.eval.temperature)
    request = EpisodeRequest("ask", "ask", question, encoded, config.seed, sampling)
    world = Path() if config.tools.url else prepare_world(config, workdir, EVALUATION_WORLD)
    with tools(config, world) as url:
        rules = episode_config(config, mode=config.eval.mode)
        return run_episodes_sync(engine, [request], rules, tool_client(config, url))[0]
