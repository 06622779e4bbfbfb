"""Resuming a run: after a kill, a spent budget, an incomplete line, a changed setting; and in shards."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from mmsearch_jax.core.errors import ConfigError
from mmsearch_jax.data.rows import Row
from mmsearch_jax.data.storage import write_rows
from mmsearch_jax.evaluation.samples import Shard, parse_shard, read_samples
from tests.data.rows import jpeg
from tests.distributed.test_learners_on_meshes import free_port
from tests.evaluation.scripted_endpoint import ScriptedEndpoint
from tests.evaluation.test_benchmarks import run, summary_of
from tests.jobs.test_datagen import served

NUMBER = 24
QUESTIONS = [f"Question {i:02d}?" for i in range(NUMBER)]
SCRIPTS = {question: "Lima" if i % 3 else "Quito" for i, question in enumerate(QUESTIONS)}
BY_CLOCK = ("seconds",)
DIRECT = "--config.eval.mode=direct"


def rows_file(folder):
    image = folder / "a.jpg"
    image.write_bytes(jpeg(1))
    rows = [Row(f"r{i:02d}", str(image), question, ("Lima",), "", None) for i, question in enumerate(QUESTIONS)]
    write_rows(rows, folder / "rows.jsonl")
    return folder


def settings(*more, concurrency=4):
    return [
        "--config.only=livevqa",
        "--config.benchmarks.livevqa.path=rows.jsonl",
        DIRECT,
        f"--config.endpoint.max_concurrency={concurrency}",
        *more,
    ]


def without_times(summary):
    return {key: value for key, value in summary.items() if key not in BY_CLOCK}


def test_a_run_killed_outright_asks_no_finished_question_again_and_ends_alike(tmp_path):
    data, endpoint = rows_file(tmp_path), ScriptedEndpoint(SCRIPTS)
    with served(endpoint) as url:
        whole = tmp_path / "whole"
        assert run(whole, data, url, *settings(concurrency=NUMBER)) == 0
        endpoint.asked.clear()
        endpoint.hold_after = 7
        command = "import sys; from tests.evaluation.test_benchmarks import run; from pathlib import Path\n"
        command += "sys.exit(run(Path(sys.argv[1]), *sys.argv[2:]))"
        killed = tmp_path / "killed"
        log = killed / "eval" / "policy" / "livevqa" / "samples.jsonl"
        process = subprocess.Popen(
            [sys.executable, "-c", command, str(killed), str(data), url, *settings(concurrency=2)]
        )
        deadline = time.monotonic() + 90
        while not log.is_file() or log.read_bytes().count(b"\n") < 7:
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        finished = [sample["id"] for sample in read_samples(log.parent)]
        assert len(finished) == 7 and not (log.parent / "summary.json").exists()
        # A kill can leave an incomplete line.
        with log.open("a") as file:
            file.write('{"benchmark": "livevqa", "id": "r')
        endpoint.asked.clear()
        endpoint.hold_after = None
        assert run(killed, data, url, *settings()) == 0
    again = {f"r{QUESTIONS.index(question):02d}" for question in endpoint.asked if endpoint.asked[question]}
    assert again.isdisjoint(finished) and len(again) + len(finished) == NUMBER
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert len({line["id"] for line in lines}) == len(lines) == NUMBER
    assert without_times(summary_of(killed, "livevqa")) == without_times(summary_of(whole, "livevqa"))
    assert summary_of(whole, "livevqa")["accuracy"] == pytest.approx(16 / 24)


def test_a_budget_ends_the_run_cleanly_and_a_larger_one_goes_on(tmp_path):
    data, endpoint = rows_file(tmp_path), ScriptedEndpoint(SCRIPTS)
    # 110 tokens per question: $0.11 at $1 per thousand tokens.
    prices = ["--config.endpoint.price_prompt=1000.0", "--config.endpoint.price_reply=1000.0"]
    with served(endpoint) as url:
        assert run(tmp_path, data, url, *settings(*prices, "--config.budget.dollars=0.5", concurrency=1)) == 0
        first = summary_of(tmp_path, "livevqa")
        assert first["questions"] == {"of": NUMBER, "done": 5} and not first["complete"]
        assert first["stopped"] == "budget.dollars (0.5) is spent"
        assert run(tmp_path, data, url, *settings(*prices, "--config.budget.dollars=0.5", concurrency=1)) == 0
        assert summary_of(tmp_path, "livevqa")["questions"]["done"] == 5
        assert run(tmp_path, data, url, *settings(*prices)) == 0
    summary = summary_of(tmp_path, "livevqa")
    assert summary["complete"] and summary["stopped"] is None
    assert endpoint.asked.total() == NUMBER and summary["cost_usd"]["total"] == pytest.approx(NUMBER * 0.11)


def test_another_setting_is_refused_with_both_values_or_gets_a_folder_of_its_own(tmp_path, capsys):
    data, endpoint = rows_file(tmp_path), ScriptedEndpoint(SCRIPTS)
    limit = "--config.eval.limit=3"
    with served(endpoint) as url:
        assert run(tmp_path, data, url, *settings(limit)) == 0
        changed = settings(limit, "--config.eval.temperature=0.5")
        assert run(tmp_path, data, url, *changed) == 2
        said = capsys.readouterr().err
        assert "eval.temperature = 0.0, which is now 0.5" in said and "if_changed=new" in said
        assert run(tmp_path, data, url, *changed, "--config.endpoint.model=other") == 2
        assert "policy.model = scripted (scripted), which is now other (other)" in capsys.readouterr().err
        assert run(tmp_path, data, url, *changed, "--config.eval.if_changed=new") == 0
        assert len(list(tmp_path.glob("eval/policy/livevqa*/summary.json"))) == 2
        assert run(tmp_path, data, url, *changed, "--config.eval.if_changed=replace") == 0
        # More rows or samples do not change the settings, so existing samples are kept.
        assert endpoint.asked.total() == 9
        assert run(tmp_path, data, url, *settings("--config.eval.limit=5", "--config.eval.temperature=0.5")) == 0
    assert endpoint.asked.total() == 11 and summary_of(tmp_path, "livevqa")["temperature"] == 0.5


def test_several_samples_give_pass_at_k_and_a_majority(tmp_path, capsys):
    data, endpoint = rows_file(tmp_path), ScriptedEndpoint(SCRIPTS)
    more = ["--config.eval.limit=4", "--config.eval.samples=3"]
    with served(endpoint) as url:
        assert run(tmp_path, data, url, *settings(*more)) == 2
        assert "at temperature 0 all samples are the same" in capsys.readouterr().err
        assert run(tmp_path, data, url, *settings(*more, "--config.eval.temperature=1.0")) == 0
    summary = summary_of(tmp_path, "livevqa")
    # Of r00 to r03, the second and third are right in each sample.
    assert summary["n"] == 12 and summary["repeats"] == {
        "samples": 3,
        "pass_at_k": {"1": 0.5, "2": 0.5, "3": 0.5},
        "majority": 0.5,
    }
    seeds = [request["seed"] for request in endpoint.requests]
    assert len(set(seeds)) == 12 and all(request["temperature"] == 1.0 for request in endpoint.requests)


def test_shards_ask_every_question_once_and_the_last_merges(tmp_path):
    data, endpoint = rows_file(tmp_path), ScriptedEndpoint(SCRIPTS)
    with served(endpoint) as url:
        assert run(tmp_path / "whole", data, url, *settings()) == 0
        endpoint.asked.clear()
        for i in range(3):
            assert run(tmp_path, data, url, *settings(), "--shard", f"{i}/3") == 0
            assert summary_of(tmp_path, "livevqa")["complete"] == (i == 2)
    assert set(endpoint.asked.values()) == {1} and len(endpoint.asked) == NUMBER
    assert len(list((tmp_path / "eval" / "policy" / "livevqa").glob("samples-*-of-3.jsonl"))) == 3
    assert without_times(summary_of(tmp_path, "livevqa")) == without_times(summary_of(tmp_path / "whole", "livevqa"))


def test_a_shard_is_written_from_zero():
    assert parse_shard("3/4") == Shard(3, 4)
    for text in ("4/4", "1", "a/b", "-1/2"):
        with pytest.raises(ConfigError, match="INDEX/COUNT"):
            parse_shard(text)
    assert sum(Shard(i, 5).has("r1") for i in range(5)) == 1


def test_a_served_policy_that_fails_is_no_wrong_answer_and_is_tried_again(tmp_path, capsys):
    data, endpoint = rows_file(tmp_path), ScriptedEndpoint(SCRIPTS | {QUESTIONS[1]: None})
    with served(endpoint) as url:
        assert run(tmp_path, data, url, *settings("--config.eval.limit=3")) == 0
        summary = summary_of(tmp_path, "livevqa")
        assert (summary["n"], summary["infrastructure_failures"], summary["complete"]) == (2, 1, False)
        assert summary["statuses"] == {"answered": 2, "policy_failed": 1}
        endpoint.scripts[QUESTIONS[1]] = "Lima"
        assert run(tmp_path, data, url, *settings("--config.eval.limit=3")) == 0
    summary = summary_of(tmp_path, "livevqa")
    assert summary["complete"] and summary["n"] == 3 and summary["statuses"] == {"answered": 3}


def test_two_processes_share_the_questions_and_the_first_merges(tmp_path):
    data, endpoint = rows_file(tmp_path), ScriptedEndpoint(SCRIPTS)
    with served(endpoint) as url:
        arguments = [
            "eval",
            "--config",
            "configs/eval/deepmmsearch.py",
            "--workdir",
            str(tmp_path),
            f"--config.data={data}",
            f"--config.endpoint.url={url}",
            "--config.endpoint.model=scripted",
            *settings(),
        ]
        processes = [
            subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "mmsearch_jax.commands.main",
                    *arguments,
                    "--coordinator",
                    f"127.0.0.1:{port}",
                    "--num-processes",
                    "2",
                    "--process-id",
                    str(number),
                ],
                env={**os.environ, "JAX_PLATFORMS": "cpu"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for port in [free_port()]
            for number in range(2)
        ]
        said = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert "Benchmarks" in said[0] and "Benchmarks" not in said[1]
    assert set(endpoint.asked.values()) == {1} and len(endpoint.asked) == NUMBER
    assert summary_of(tmp_path, "livevqa")["complete"]


def test_a_policy_or_a_judge_that_is_down_is_not_asked_for_ever(tmp_path, capsys):
    questions = [f"Number {i:03d}?" for i in range(150)]
    data, endpoint = rows_file(tmp_path), ScriptedEndpoint(dict.fromkeys(questions), right=None)
    rows = [
        Row(f"r{i:03d}", str(tmp_path / "a.jpg"), question, ("Lima",), "", None) for i, question in enumerate(questions)
    ]
    write_rows(rows, tmp_path / "rows.jsonl")
    with served(endpoint) as url:
        assert run(tmp_path, data, url, *settings(concurrency=1)) == 2
        assert "every episode failed; the first" in capsys.readouterr().err
        summary = summary_of(tmp_path, "livevqa")
        assert summary["stopped"].startswith("100 consecutive episodes failed") and endpoint.asked.total() == 100
        endpoint.scripts = dict.fromkeys(questions, "Lima")
        judge = [f"--config.judge.url={url}", "--config.judge.model=j", "--config.judge.max_concurrency=1"]
        assert run(tmp_path, data, url, *settings(*judge)) == 0
    judged = summary_of(tmp_path, "livevqa")["judge"]
    assert (judged["n"], judged["failed"], endpoint.judged.total()) == (0, 150, 50)
