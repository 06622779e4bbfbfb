"""Odd rows through the whole path: convert, validate, a step of GRPO, evaluation. What is judged sound can be played."""

import json
import re

import pytest

from mmsearch_jax.commands.main import main
from mmsearch_jax.core.chat_endpoint import ChatEndpoint
from mmsearch_jax.data.storage import FORMATS, read_rows, scan_rows
from mmsearch_jax.data.usable import Use, learnable_episodes, why_all_unusable
from mmsearch_jax.evaluation.benchmark_run import Evaluation, evaluate
from mmsearch_jax.evaluation.policies import EnginePolicy
from mmsearch_jax.evaluation.served_policy import ServedPolicy
from mmsearch_jax.images.processing import ImageProcessor
from mmsearch_jax.learners import grpo
from mmsearch_jax.learners.prompts import Prompts, judge_prompts, read_prompts
from mmsearch_jax.learners.training_run import RunPlace
from mmsearch_jax.rewards.compose import Scorer
from mmsearch_jax.rollout.tool_client import ToolClient
from mmsearch_jax.settings.learning import GRPOConfig, RewardConfig, RunConfig
from mmsearch_jax.settings.rollout import EpisodeConfig
from tests.data.row_mutations import Mutations, write_pictures
from tests.evaluation.scripted_endpoint import ScriptedEndpoint
from tests.jobs.test_datagen import served
from tests.learners.test_grpo import SHAPE, SIZES
from tests.learners.test_grpo import engine as random_engine
from tests.rollout import random_policy

LENGTH = SIZES.max_length
RULES = EpisodeConfig(mode="direct", prompt_style="short", max_turn_tokens=4, max_trajectory_tokens=LENGTH)
PROCESSOR = ImageProcessor(min_pixels=28 * 28, max_pixels=56 * 84)


def converted(source, out, capsys, *more):
    """Converts a file; returns how many rows were read and written, and why others were rejected."""
    assert main(["data", "convert", "rows", str(source), str(out), *more]) == 0
    said = re.match(r"(\d+) read, (\d+) written .*, (\d+) rejected", capsys.readouterr().out)
    read, written, rejected = map(int, said.groups())
    refused = out.with_name(f"rejected-{out.name}.jsonl")
    reasons = [json.loads(line) for line in refused.read_bytes().splitlines()]
    assert read == written + rejected and len(reasons) == rejected
    assert all("\n" not in reason["reason"] and len(reason["reason"]) < 2000 for reason in reasons)
    return read, written, [reason["reason"] for reason in reasons]


def validated(path, capsys, bad=0):
    """Validates a file of which so many rows are bad."""
    assert main(["data", "validate", "--images", str(path)]) == (2 if bad else 0)
    said = capsys.readouterr()
    assert f"{bad} of " in said.err if bad else "rows, all valid" in said.out


def step_of_grpo(path, workdir, playable, policy_engine):
    """Takes every playable prompt as training does, and learns one step from some of them."""
    recipe = GRPOConfig(
        num_steps=1,
        prompts_per_step=4,
        group_size=2,
        updates_per_batch=1,
        skip_uniform=False,
        batch=SHAPE,
        reward=RewardConfig(match="exact"),
        max_unusable=1.0,
    )
    found = read_prompts(path)
    use = learnable_episodes(PROCESSOR, random_policy.RENDERER, RULES, recipe.batch)
    fits = {row.id for row, why in zip(playable, why_all_unusable(playable, use), strict=True) if why is None}
    aside = judge_prompts(found, use, workdir, recipe.max_unusable)
    chosen, _ = Prompts(found.rows, 0, aside).take(0, len(fits), policy_engine.prepare_image)
    assert {row.id for _, row, _ in chosen} == fits
    environment = grpo.Environment(policy_engine, ToolClient("http://127.0.0.1:9"), RULES, Scorer(recipe.reward))
    place = RunPlace(workdir, "grpo", RunConfig(), show_progress=False)
    grpo.train(random_policy.model(random_policy.SHALLOW), found.rows, recipe, environment, place, aside=aside)
    (step,) = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    assert step["dropped"] == step["too_long"] == 0


def asked_of(policy, rows, workdir):
    """Evaluates the policy; returns the ids that were asked and the ids that were left out."""
    summary = evaluate(
        policy, rows, Evaluation("x", "fuzz", RULES), None, workdir, max_unusable=1.0, show_progress=False
    )
    lines = (workdir / "eval" / "x" / "samples.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    asked = [json.loads(line)["id"] for line in lines]
    assert len(set(asked)) == len(asked) == summary["n"] and summary["infrastructure_failures"] == 0
    return set(asked), set(summary.get("unreadable_rows", ()))


def through_all(seed, count, folder, capsys):
    """One run of the whole path; returns how many rows were playable."""
    images = write_pictures(folder)
    source = folder / "in.jsonl"
    lines = Mutations(seed, images).file(source, count)
    embedded = []
    for ending in FORMATS:
        read, written, _ = converted(source, folder / f"embedded{ending}", capsys)
        assert read == lines and written > count // 10
        embedded.append([row for _, row in scan_rows(folder / f"embedded{ending}")])
        assert len(embedded[-1]) == written
        validated(folder / f"embedded{ending}", capsys)
    assert all(rows == embedded[0] for rows in embedded[1:])
    kept = folder / "kept.jsonl"
    reasons = converted(source, kept, capsys, "--no-embed")[2]
    rows = read_rows(kept)
    sound = [row for row, why in zip(rows, why_all_unusable(rows, Use()), strict=True) if why is None]
    validated(kept, capsys, len(rows) - len(sound))
    # Of two rows with one id, the first whose images are sound is written.
    others = {row.id for row in embedded[0]} ^ {row.id for row in sound}
    assert all(any(f"id: '{name}' is already used" in reason for reason in reasons) for name in others)
    playable = [row for row in sound if len(row.images) <= 1]
    engine = random_engine()
    step_of_grpo(kept, folder / "grpo", playable, engine)
    names = {row.id for row in rows}
    policy = EnginePolicy(lambda rules: engine, {"fingerprint": "f"}, PROCESSOR)
    with served(ScriptedEndpoint({"": "Lima"})) as url:
        endpoint = ServedPolicy(ChatEndpoint(url, "scripted", max_concurrency=8))
        for name, each in (("engine", policy), ("endpoint", endpoint)):
            asked, left = asked_of(each, rows, folder / name)
            assert asked == {row.id for row in playable} and left == names - asked, name
    return len(playable)


def test_whatever_rows_hold_what_is_sound_can_be_played(tmp_path, capsys):
    assert through_all(0, 120, tmp_path, capsys) > 20


@pytest.mark.slow
def test_a_thousand_odd_rows(tmp_path, capsys):
    assert through_all(1, 1000, tmp_path, capsys) > 200
