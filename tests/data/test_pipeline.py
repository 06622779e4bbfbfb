"""The pipeline: the order is independent of processes and workers, resume gives the same bytes, losses are reported."""

import dataclasses
import itertools
import json
import os
import pickle
import subprocess
import sys

import jax
import numpy as np
import pytest

from benchmarks.stand_ins import tiny_tokenizer
from mmsearch_jax.core.errors import ConfigError, DataError
from mmsearch_jax.core.protocol import Answer, render_turn
from mmsearch_jax.data.batches import TokenBatch, join_batches
from mmsearch_jax.data.chat import ChatRenderer
from mmsearch_jax.data.pipeline import Pipeline, PipelineConfig, merge_states, num_lanes
from mmsearch_jax.data.rows import ConversationTurn
from mmsearch_jax.data.sequences import SequenceBuilder
from mmsearch_jax.data.storage import write_rows
from mmsearch_jax.images.processing import ImageProcessor
from mmsearch_jax.models.config import ModelConfig
from mmsearch_jax.settings.learning import BatchShape
from tests.data.rows import bare_row, conversation, full_row, jpeg

RENDERER = ChatRenderer(tiny_tokenizer.build())
BUILDER = SequenceBuilder(RENDERER, dataclasses.replace(ModelConfig(), image_token_id=RENDERER.image_pad))
CONFIG = PipelineConfig(BatchShape(8, 256, images=16, patches=64), seed=3, lanes=4, prompt_style="short")
PROCESSOR = ImageProcessor(min_pixels=28 * 28, max_pixels=56 * 56)


def row(number, name="r", image=None):
    """A conversation whose length depends on its number, and whose answer contains the number."""
    answer = ConversationTurn(render_turn("I see " * (number % 7), Answer(f"{name}{number}")))
    turns = (conversation()[0], answer) if number % 2 else (answer,)
    image = jpeg(number) if image is None else image
    return dataclasses.replace(full_row(f"{name}{number}", image), question="What?", turns=turns, more_images=())


@pytest.fixture(scope="module")
def rows_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("set") / "a.array_record"
    write_rows([row(i) for i in range(40)], path)
    return path


def pipeline(paths, config=CONFIG, process=0, num_processes=1):
    return Pipeline(
        [paths] if not isinstance(paths, list) else paths, config, BUILDER, PROCESSOR, process, num_processes
    )


def take(made, count, state=None):
    steps = made.steps(state)
    try:
        return list(itertools.islice(steps, count))
    finally:
        steps.close()


def equal(one: TokenBatch, other: TokenBatch):
    leaves, others = jax.tree.leaves(one), jax.tree.leaves(other)
    return len(leaves) == len(others) and all(
        a.dtype == b.dtype and np.array_equal(a, b) for a, b in zip(leaves, others, strict=True)
    )


def answers(batch):
    """The answers that a batch trains on, unordered."""
    texts = []
    for ids, segments in zip(batch.token_ids, batch.segment_ids, strict=True):
        for segment in range(1, segments.max() + 1):
            text = RENDERER.decode(ids[segments == segment].tolist())
            texts.append(text.split("<answer>")[-1].removesuffix("</answer>"))
    return texts


@pytest.fixture(scope="module")
def reference(rows_file):
    return take(pipeline(rows_file), 9)


@pytest.mark.parametrize("num_processes", [1, 2, 4])
@pytest.mark.parametrize("resume_at", range(6))
def test_a_resume_gives_the_same_bytes_with_any_number_of_processes(rows_file, reference, num_processes, resume_at):
    # The state after a JSON round trip, as in a checkpoint.
    state = json.loads(json.dumps(reference[resume_at - 1].state)) if resume_at else None
    shards = [take(pipeline(rows_file, CONFIG, i, num_processes), 3, state) for i in range(num_processes)]
    for i in range(3):
        joined = join_batches([shard[i].batch for shard in shards])
        assert equal(joined, reference[resume_at + i].batch)
        assert merge_states([shard[i].state for shard in shards]) == reference[resume_at + i].state


_PROCESS = """
import itertools, json, pathlib, pickle, sys
from tests.data.test_pipeline import CONFIG, dataclasses, pipeline
if __name__ == "__main__":
    rows, out, process, num_processes, num_workers, state = sys.argv[1:]
    config = dataclasses.replace(CONFIG, num_workers=int(num_workers))
    steps = pipeline(pathlib.Path(rows), config, int(process), int(num_processes)).steps(json.loads(state))
    pathlib.Path(out).write_bytes(pickle.dumps([(s.batch, s.state) for s in itertools.islice(steps, 2)]))
    steps.close()
"""


@pytest.mark.parametrize(("num_processes", "num_workers"), [(2, 0), pytest.param(2, 2, marks=pytest.mark.slow)])
def test_real_processes_with_workers_go_on_where_one_stopped(
    rows_file, reference, num_processes, num_workers, tmp_path
):
    (tmp_path / "process.py").write_text(_PROCESS)
    state, outs = json.dumps(reference[4].state), [tmp_path / f"{i}.pickle" for i in range(num_processes)]
    # Grain's workers are spawned, so they need the repository on their path.
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    running = [
        subprocess.Popen(
            [
                sys.executable,
                tmp_path / "process.py",
                rows_file,
                out,
                str(i),
                str(num_processes),
                str(num_workers),
                state,
            ],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i, out in enumerate(outs)
    ]
    for process in running:
        _, errors = process.communicate(timeout=180)
        assert process.returncode == 0, errors[-2000:]
    shards = [pickle.loads(out.read_bytes()) for out in outs]
    for step, parts in enumerate(zip(*shards, strict=True), 5):
        assert equal(join_batches([batch for batch, _ in parts]), reference[step].batch)
        assert merge_states([state for _, state in parts]) == reference[step].state


def test_the_number_of_workers_changes_nothing(rows_file, reference):
    # Two workers only for the last of four lanes, because starting them is slow.
    config = dataclasses.replace(CONFIG, num_workers=2)
    made = take(pipeline(rows_file, config, 3, 4), 2, reference[1].state)
    plain = take(pipeline(rows_file, CONFIG, 3, 4), 2, reference[1].state)
    assert all(equal(a.batch, b.batch) for a, b in zip(made, plain, strict=True))


def test_an_epoch_holds_every_row_once_and_the_next_another_order(rows_file):
    config = dataclasses.replace(CONFIG, lanes=1)
    steps = take(pipeline(rows_file, config), 30)
    seen = [answer for step in steps for answer in answers(step.batch)]
    waiting = len(steps[-1].state["lanes"]["0"]["waiting"])
    assert len(seen) == steps[-1].state["lanes"]["0"]["next"] - waiting
    counts = {f"r{i}": seen.count(f"r{i}") for i in range(40)}
    # Packing reorders only within its lookahead, so counts differ at most around an epoch's borders.
    assert len(seen) > 80 and max(counts.values()) - min(counts.values()) <= 2 and min(counts.values()) >= 1
    assert sum(counts.values()) == len(seen)
    other = take(pipeline(rows_file, dataclasses.replace(config, seed=4)), 1)
    assert not equal(other[0].batch, steps[0].batch)


def test_sets_are_mixed_by_their_weights(rows_file, tmp_path):
    write_rows([row(i, "s") for i in range(10)], tmp_path / "b.array_record")
    config = dataclasses.replace(CONFIG, lanes=1, weights=(3.0, 1.0))
    steps = take(pipeline([rows_file, tmp_path / "b.array_record"], config), 25)
    seen = [answer for step in steps for answer in answers(step.batch)]
    assert sum(answer.startswith("s") for answer in seen) / len(seen) == pytest.approx(0.25, abs=0.05)


def test_bad_rows_in_the_middle_are_left_out_counted_and_named(tmp_path):
    rows = [row(i) for i in range(12)]
    rows[4] = row(4, image=jpeg(4)[:400])
    rows[7] = bare_row("plain")
    rows[9] = dataclasses.replace(rows[9], question="Why? " * 400)
    path = tmp_path / "a.array_record"
    write_rows(rows, path)
    steps = take(pipeline(path, dataclasses.replace(CONFIG, lanes=1)), 8)
    seen = {answer for step in steps for answer in answers(step.batch)}
    assert seen == {f"r{i}" for i in range(12)} - {"r4", "r7", "r9"}
    reasons = {skipped.reason for step in steps for skipped in step.skipped}
    for part in ("row 5: image: the image is damaged", "row 8: turns: there is no conversation", "row 10: "):
        assert any(f"a.array_record, {part}" in reason for reason in reasons), reasons
    assert len(reasons) == 3
    taken = steps[-1].state["lanes"]["0"]
    used = sum(len(answers(step.batch)) for step in steps)
    assert taken["next"] == used + len(taken["waiting"]) + sum(len(step.skipped) for step in steps)


def test_sets_that_cannot_be_read_stop_the_run_before_it_begins(rows_file, tmp_path):
    path = tmp_path / "t.array_record"
    path.write_bytes(rows_file.read_bytes()[:30_000])
    with pytest.raises(DataError, match=r"t\.array_record is cut short"):
        pipeline(path)
    write_rows([], path)
    with pytest.raises(DataError, match="contains no rows"):
        pipeline(path)
    with pytest.raises(DataError, match="no ArrayRecord file at"):
        pipeline(tmp_path / "none.array_record")


def test_a_set_of_bad_rows_ends_in_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr("mmsearch_jax.data.pipeline._MAX_BAD_RUN", 20)
    write_rows([bare_row()], tmp_path / "a.array_record")
    with pytest.raises(DataError, match="20 consecutive rows cannot be used; the last: a.array_record, row 1"):
        take(pipeline(tmp_path / "a.array_record"), 1)


def test_more_bad_rows_than_the_limit_end_in_an_error_that_names_the_setting(tmp_path):
    write_rows([row(0), bare_row("plain"), bare_row("bare")], tmp_path / "a.array_record")
    config = dataclasses.replace(CONFIG, lanes=1)
    # Two of three rows are bad.
    with pytest.raises(DataError, match=r"5\d of \d+ rows cannot be used.*sft.data.max_unusable = 0.5"):
        take(pipeline(tmp_path / "a.array_record", config), 40)
    assert len(take(pipeline(tmp_path / "a.array_record", dataclasses.replace(config, max_unusable=0.9)), 4)) == 4


def test_a_waiting_row_that_is_lost_before_a_resume_is_skipped(tmp_path):
    (tmp_path / "images").mkdir()
    rows = []
    for i in range(12):
        (tmp_path / "images" / f"{i}.jpg").write_bytes(jpeg(i))
        rows.append(row(i, image=str(tmp_path / "images" / f"{i}.jpg")))
    write_rows(rows, tmp_path / "a.array_record")
    config = dataclasses.replace(CONFIG, lanes=1)
    state = take(pipeline(tmp_path / "a.array_record", config), 1)[0].state
    assert state["lanes"]["0"]["waiting"]
    lost = range(1, 12, 3)
    for i in lost:
        (tmp_path / "images" / f"{i}.jpg").unlink()
    step = take(pipeline(tmp_path / "a.array_record", config), 1, state)[0]
    assert {skipped.position for skipped in step.skipped} & set(state["lanes"]["0"]["waiting"])
    assert all("does not exist" in skipped.reason for skipped in step.skipped)
    assert not {f"r{i}" for i in lost} & set(answers(step.batch))


@pytest.mark.parametrize(
    ("change", "processes", "problem"),
    [
        ({"lanes": 3}, (0, 1), "do not divide evenly among 3 lanes"),
        ({}, (0, 3), "process 0 of 3 cannot serve 4 lanes"),
        ({"weights": (1.0, 2.0)}, (0, 1), "1 sets need as many weights"),
    ],
)
def test_what_does_not_divide_is_refused(rows_file, change, processes, problem):
    with pytest.raises(ConfigError, match=problem):
        pipeline(rows_file, dataclasses.replace(CONFIG, **change), *processes)


def test_a_state_of_another_run_or_of_one_process_alone_is_refused(rows_file, reference):
    with pytest.raises(ConfigError, match="resume with its settings"):
        take(pipeline(rows_file, dataclasses.replace(CONFIG, seed=9)), 1, reference[0].state)
    alone = take(pipeline(rows_file, CONFIG, 0, 2), 1)[0].state
    with pytest.raises(ConfigError, match="lacks lane 2: merge"):
        take(pipeline(rows_file), 1, alone)


@pytest.mark.parametrize(
    ("rows", "images", "at_least", "processes", "lanes"),
    [
        (8, 32, 8, 1, 8),
        (8, 32, 8, 4, 8),
        (16, 64, 8, 16, 16),
        # The tiny policy's batch.
        (8, 20, 1, 1, 1),
        (8, 20, 1, 2, 2),
        # 8 parts do not divide the images: as many as do.
        (8, 20, 8, 2, 4),
        (12, 24, 8, 3, 12),
        (6, 0, 8, 3, 6),
    ],
)
def test_processes_find_the_number_of_lanes_themselves(rows, images, at_least, processes, lanes):
    assert num_lanes(BatchShape(rows, 32, images, 24), at_least, processes) == lanes


def test_processes_that_do_not_divide_the_batch_are_refused():
    with pytest.raises(
        ConfigError, match=r"sft.batch has 8 rows and 20 rows of images, which 8 processes do not divide"
    ):
        num_lanes(BatchShape(8, 32, 20, 24), 1, 8)
