"""The published sets from disk to scores: a scripted policy at an endpoint, the real search server, a scripted judge."""

import json
import re

import pytest

from mmsearch_jax.commands import main as cli
from mmsearch_jax.core.protocol import GIVE_UP
from mmsearch_jax.evaluation.benchmarks import load_rows
from mmsearch_jax.evaluation.samples import read_samples
from mmsearch_jax.jobs.search_server import start_server
from mmsearch_jax.settings.evaluation import BenchmarkConfig
from tests.data.rows import jpeg
from tests.evaluation.scripted_endpoint import ScriptedEndpoint
from tests.evaluation.small_sets import SCORES, SCRIPTS, write_sets
from tests.jobs.test_datagen import served
from tests.tools_server.small_corpus import write_corpus

RIGHT = ("Ostrin", "1.05 m", "the Menger family", "Ada", "surfing", "rain", "It is a Porsche 944", "Republic of Peru")
CONFIG = "configs/eval/deepmmsearch.py"


def run(workdir, data, url, *more):
    values = {"data": data, "endpoint.url": url, "endpoint.model": "scripted"}
    settings = [f"--config.{key}={value}" for key, value in values.items()]
    return cli.main(["eval", "--config", CONFIG, "--workdir", str(workdir), *settings, *map(str, more)])


def summary_of(workdir, benchmark, name="policy"):
    return json.loads((workdir / "eval" / name / benchmark / "summary.json").read_text())


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """One run over nine sets, its endpoint, and the address of its search server."""
    root = tmp_path_factory.mktemp("suite")
    data, endpoint = write_sets(root / "data"), ScriptedEndpoint(SCRIPTS, RIGHT)
    only = ",".join(SCORES)
    with start_server(write_corpus(root / "corpus")) as tools, served(endpoint) as url:
        more = [
            f"--config.only={only}",
            f"--config.tools.url={tools.url}",
            f"--config.judge.url={url}",
            "--config.judge.model=judge",
        ]
        prices = ["--config.endpoint.price_prompt=2.0", "--config.endpoint.price_reply=8.0"]
        assert run(root, data, url, *more, *prices) == 0
        one = ["--config.only=infoseek", f"--config.tools.url={tools.url}"]
        for mode, others in {"direct": [], "rag": [], "prompted": ["--config.eval.direct=direct"]}.items():
            assert run(root, data, url, *one, f"--config.eval.mode={mode}", f"--config.eval.name={mode}", *others) == 0
        crippled = [
            "--config.eval.allow_image=false",
            "--config.eval.max_text_searches=1",
            "--config.eval.name=crippled",
        ]
        assert run(root, data, url, *one, *crippled) == 0
        yield root, endpoint, tools.url


@pytest.mark.parametrize("benchmark", SCORES)
def test_each_set_has_the_score_that_a_hand_computes(done, benchmark):
    summary = summary_of(done[0], benchmark)
    assert summary["metric"]["score"] == pytest.approx(SCORES[benchmark])
    assert summary["complete"] and summary["statuses"] == {"answered": summary["n"]}


def test_parts_groups_and_rows_that_are_not_asked_are_named(done):
    infoseek = summary_of(done[0], "infoseek")
    assert infoseek["metric"]["parts"] == {
        "unseen_question": 1.0,
        "unseen_entity": 0.5,
        "time": 1.0,
        "numerical": 1.0,
        "string": 0.5,
    }
    simple = summary_of(done[0], "simplevqa")
    assert simple["n"] == 3 and simple["skipped_rows"] == {"language is not EN": 1}
    assert simple["by_category"]["Art"]["n"] == 3
    # A question without an image is asked, too.
    assert summary_of(done[0], "mmsearch")["skipped_rows"] == {}
    assert summary_of(done[0], "fvqa")["tool_use"]["missed"] == {"by": "flag", "n": 1, "share": 0.0}


def test_the_judge_is_counted_beside_the_metric_with_their_agreement(done):
    judged = summary_of(done[0], "infoseek")["judge"]
    # The metric: right, right, wrong, right; the judge: right, right, wrong, wrong.
    assert (judged["model"], judged["prompt"], judged["accuracy"]) == ("judge", "correct-1", 0.5)
    assert judged["agreement"] == {"n": 4, "share": 0.75, "kappa": pytest.approx(0.5)}
    grades = summary_of(done[0], "simplevqa")["judge"]
    assert grades["prompt"] == "grades-1" and grades["grades"]["f_score"] == pytest.approx(0.4)
    assert done[1].judged["Ada"] == 1 and GIVE_UP not in done[1].judged


def test_an_endpoints_episode_is_the_same_with_messages(done):
    sample = next(s for s in read_samples(done[0] / "eval" / "policy" / "infoseek") if s["id"] == "v1")
    kinds = [turn["action"]["kind"] for turn in sample["trajectory"]["turns"]]
    assert kinds == ["image_search", "text_search", "text_search", "answer"]
    assert sample["calls"] == 3 and sample["trajectory"]["token_ids"] == [] and sample["lengths"]["turns"] == 4
    last = next(r["messages"] for r in done[1].requests if len(r["messages"]) == 7)
    assert [message["role"] for message in last] == ["user", "assistant"] * 3 + ["user"]
    assert "<information>" in last[2]["content"] and "Ostrin" in last[6]["content"]
    assert done[1].requests[0]["temperature"] == 0.0 and "seed" not in done[1].requests[0]


def test_tool_use_cost_and_self_correction_equal_hand_counts(done):
    summary = summary_of(done[0], "infoseek")
    use = summary["tool_use"]
    shares = {"searched": 0.25, "mixed": 0.25, "multi_text": 0.25, "text": 0.25, "whole_image": 0.25, "crop": 0.0}
    assert {name: use[name] for name in shares} == shares
    assert use["calls_per_question"] == 0.75 and use["calls_per_correct_answer"] == 1.0
    assert use["self_correction"] == {"opportunities": 1, "corrected": 1, "rate": 1.0}
    # 7 turns with 100 prompt tokens at $2 and 10 reply tokens at $8 per million.
    assert summary["cost_usd"]["total"] == pytest.approx(7 * (100 * 2 + 10 * 8) / 1e6)
    assert summary["lengths"]["turns"] == 7 / 4


def test_the_modes_differ_in_their_tools_alone(done):
    root, *_ = done
    direct, rag = (summary_of(root, "infoseek", name) for name in ("direct", "rag"))
    assert direct["searches_per_question"] == 0.0
    assert rag["searches_by_tool"] == {"text": 1.0, "whole_image": 1.0, "crop": 0.0}
    sample = next(s for s in read_samples(root / "eval" / "rag" / "infoseek") if s["id"] == "v4")
    assert [turn["action"]["kind"] for turn in sample["trajectory"]["turns"]] == [
        "image_search",
        "text_search",
        "answer",
    ]
    # In mode "direct", the script of the first question writes tags, which are no answer; the others stay right.
    assert direct["accuracy"] == 0.5
    needless = summary_of(root, "infoseek", "prompted")["tool_use"]
    assert needless["needless"] == {"by": "direct run", "n": 2, "share": 0.0}
    assert needless["missed"] == {"by": "direct run", "n": 2, "share": 0.5}


def test_ablations_by_flag_refuse_what_they_take_away(done):
    sample = next(s for s in read_samples(done[0] / "eval" / "crippled" / "infoseek") if s["id"] == "v1")
    turns = sample["trajectory"]["turns"]
    assert [turn["tool"]["refused"] for turn in turns[:3]] == [True, False, True] and sample["calls"] == 1
    assert "No image search is offered here." in turns[0]["observation"]
    assert "No text search is left: 1 allowed." in turns[2]["observation"]


def test_an_image_that_came_with_the_row_lies_beside_the_samples(done):
    folder = done[0] / "eval" / "policy" / "simplevqa"
    images = [sample["row"]["image"] for sample in read_samples(folder)]
    assert len(set(images)) == 3 and all((folder / image).read_bytes().startswith(b"\xff\xd8") for image in images)


def test_asked_again_nothing_is_asked_and_judging_anew_needs_no_policy(done, tmp_path):
    root, endpoint, tools_url = done
    asked, before = endpoint.asked.copy(), summary_of(root, "okvqa")
    stricter = ScriptedEndpoint({}, ())
    with served(stricter) as url:
        more = ["--config.only=okvqa", f"--config.judge.url={url}", "--config.judge.model=strict"]
        server = f"--config.tools.url={tools_url}"
        assert run(root, root / "data", "http://127.0.0.1:1/v1", server, *more) == 0
        assert run(root, root / "data", "", "--rejudge", *more) == 0
    after = summary_of(root, "okvqa")
    assert endpoint.asked == asked and stricter.judged.total() == 2
    assert (before["judge"]["accuracy"], after["judge"]["accuracy"]) == (0.5, 0.0)
    assert {k: v for k, v in before.items() if k != "judge"} == {k: v for k, v in after.items() if k != "judge"}


THREE_SETS = """
from mmsearch_jax.core.config_files import run_config_file

def get_config():
    config = run_config_file("configs/eval/deepmmsearch.py")
    for name in set(config.benchmarks) - {"okvqa", "a_okvqa", "infoseek"}:
        del config.benchmarks[name]
    return config
"""


def test_a_missing_set_is_named_with_how_to_get_it_and_the_others_run(tmp_path, capsys):
    data = write_sets(tmp_path / "data")
    (data / "a-okvqa" / "aokvqa_v1p0_val.json").unlink()
    (tmp_path / "three.py").write_text(THREE_SETS)
    with served(ScriptedEndpoint(SCRIPTS)) as url:
        more = ["--config.eval.mode=direct", "--config.eval.name=direct"]
        assert run(tmp_path, data, url, "--config", str(tmp_path / "three.py"), *more) == 0
    suite = json.loads((tmp_path / "eval" / "direct" / "suite.json").read_text())
    assert sorted(suite["summaries"]) == ["direct/infoseek", "direct/okvqa"]
    assert (
        "aokvqa_v1p0_val.json" in suite["missing"]["a_okvqa"]
        and "github.com/allenai/aokvqa" in suite["missing"]["a_okvqa"]
    )
    out = capsys.readouterr().out
    assert "okvqa" in out and "95.0" in out and "github.com" in out


def test_a_set_that_was_asked_for_by_name_and_is_missing_is_an_error(tmp_path, capsys):
    data = write_sets(tmp_path / "data")
    (data / "a-okvqa" / "aokvqa_v1p0_val.json").unlink()
    nobody, direct = "http://127.0.0.1:1/v1", "--config.eval.mode=direct"
    for more, message in (
        (["--config.only=okvqa,a_okvqa", direct], "a_okvqa: .* has no aokvqa_v1p0_val.json.*github.com"),
        (
            ["--config.only=dynvqa", f"--config.data={tmp_path}/none", direct],
            "the benchmark dynvqa has no data at .*/none/dynvqa: get it from",
        ),
        (["--config.only=mmsearch", f"--config.data={tmp_path}/none", direct], "the benchmark mmsearch has no data at"),
        (["--config.only=infoseek"], "the benchmark infoseek needs a search server"),
        (["--rows", str(tmp_path / "none.jsonl"), direct], "rows.path names .*/none.jsonl, which does not exist"),
        (["--rows", str(tmp_path), "--name", "own", direct], "no rows at .*rows.jsonl"),
        (["--rows", str(tmp_path), "--config.only=okvqa"], "only is 'okvqa', but rows.path"),
        (["--name", "own"], "rows.path is empty, but rows.name is 'own'"),
        (["--rows", str(tmp_path), "--name", "../own"], "rows.name is '../own': use letters"),
    ):
        assert run(tmp_path, data, nobody, *more) == 2
        said = capsys.readouterr().err
        assert re.search(message, said) and said.count("\n") == 1, said
    assert not (tmp_path / "eval").exists()


def test_own_rows_are_a_set_under_their_own_name(tmp_path, monkeypatch, capsys):
    (tmp_path / "mine").mkdir()
    record = {"image": "a.jpg", "question": "Which flag is it?", "answers": ["Peru", "Republic of Peru"]}
    lines = [record | {"id": "1"}, record | {"id": "2", "answers": ["Chile"]}, {"id": "3", "kind": "odd"}]
    (tmp_path / "mine" / "flags of 2026.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "mine" / "a.jpg").write_bytes(jpeg())
    monkeypatch.chdir(tmp_path)
    direct = ["--config.eval.mode=direct", "--rows", "mine/flags of 2026.jsonl"]
    with served(ScriptedEndpoint(SCRIPTS)) as url:
        assert run(tmp_path, "/nowhere", url, *direct, "--name", "flags") == 0
        assert run(tmp_path, "/nowhere", url, *direct) == 0
    summary = summary_of(tmp_path, "flags")
    assert (summary["benchmark"], summary["n"], summary["metric"]["score"]) == ("flags", 2, 0.5)
    assert summary["skipped_rows"] and summary_of(tmp_path, "flags_of_2026")["n"] == 2
    assert "flags" in capsys.readouterr().out and not list(tmp_path.rglob("fvqa*"))


def test_a_sample_is_chosen_by_the_seed_and_grows_without_losing_rows(tmp_path):
    data = write_sets(tmp_path / "data")

    def chosen(sample, seed=0):
        benchmark = BenchmarkConfig("infoseek", "infoseek", "val", "infoseek", sample)
        return [row.id for row in load_rows(benchmark, data, tmp_path, seed).rows]

    assert chosen(0) == chosen(9) == ["v1", "v2", "v3", "v4"]
    assert set(chosen(1)) < set(chosen(2)) < set(chosen(3)) and chosen(2) == sorted(chosen(2))
    assert len({tuple(chosen(2, seed)) for seed in range(20)}) > 1
