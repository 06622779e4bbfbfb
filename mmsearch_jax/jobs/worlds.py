"""The mini-world in a work directory, and the scripted teacher's conversations about it; each is made once."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import shutil
from pathlib import Path

import tqdm

from mmsearch_jax.data.chat import ChatRenderer
from mmsearch_jax.data.rows import embed_images
from mmsearch_jax.data.storage import read_rows, write_rows
from mmsearch_jax.distributed.processes import first_process_first
from mmsearch_jax.jobs.search_tools import search_server, tool_client
from mmsearch_jax.miniworld import build
from mmsearch_jax.models.policies import Policy
from mmsearch_jax.settings.commands import PolicySettings

TRAINING_WORLD, EVALUATION_WORLD = "train", "real"


def prepare_world(settings: PolicySettings, workdir: Path, name: str) -> Path:
    """The folder of a mini-world, which is built in `workdir`/worlds unless one with the same settings exists.

    Only the first process builds it; the others wait.
    """
    with first_process_first():
        return _build(settings, workdir / "worlds" / name, name)


def _build(settings: PolicySettings, folder: Path, name: str) -> Path:
    world = settings.world
    if name == TRAINING_WORLD:
        sizes = dataclasses.asdict(world)
        del sizes["num_eval_rows"]
        maker = build.build_training_world
    else:
        sizes, maker = {"num_rows": world.num_eval_rows}, build.build_evaluation_world
    wanted = {**sizes, "seed": settings.seed}
    stamp = folder / "settings.json"
    if stamp.is_file() and json.loads(stamp.read_text(encoding="utf-8")) == wanted:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    maker(folder, **wanted)
    stamp.write_text(json.dumps(wanted), encoding="utf-8")
    return folder


def teacher_conversations(settings: PolicySettings, workdir: Path, policy: Policy) -> Path:
    """SFT conversations by the scripted teacher with the live tools, as an ArrayRecord file; made once per world."""
    world = prepare_world(settings, workdir, TRAINING_WORLD)
    out = world / "conversations" / "rows.array_record"
    with first_process_first():
        if not out.is_file():
            lines = out.with_suffix(".jsonl")
            if not lines.is_file():
                with search_server(settings.tools, world) as url:
                    asyncio.run(_converse(settings, world, lines, url, policy))
            # With their images, so that the file can be read from anywhere.
            write_rows(map(embed_images, read_rows(lines)), out)
    return out


async def _converse(settings: PolicySettings, world: Path, out: Path, url: str, policy: Policy) -> None:
    rows, rules = read_rows(world / "sft"), settings.episode
    client = tool_client(settings.tools, url)
    with tqdm.tqdm(total=len(rows), desc="teacher", unit="row") as bar:
        try:
            counts = await build.write_conversations(
                rows, out, client, rules, ChatRenderer(policy.tokenizer), bar.update
            )
        finally:
            await client.close()
        bar.write(f"conversations: {dict(counts)}")
