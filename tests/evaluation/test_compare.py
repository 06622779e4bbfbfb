"""The comparison of two runs of a scripted policy, against values computed by hand."""

import dataclasses
import json

import pytest

from mmsearch_jax.commands import main as cli
from mmsearch_jax.core.errors import DataError
from mmsearch_jax.data.storage import read_rows, write_rows
from mmsearch_jax.evaluation.compare import compare_runs
from mmsearch_jax.report.pairs import pairs
from mmsearch_jax.report.runs import find_evaluations
from mmsearch_jax.report.viewer_data import PageBudget, collect
from tests.data.rows import jpeg
from tests.evaluation.scripted_endpoint import ScriptedEndpoint
from tests.evaluation.test_benchmarks import run
from tests.evaluation.test_resume import QUESTIONS, SCRIPTS, rows_file, settings
from tests.jobs.test_datagen import served


def test_the_difference_is_paired_by_question_by_metric_and_judge(tmp_path, capsys):
    data = rows_file(tmp_path)
    # Images with different numbers of questions: one to six.
    names = [f"{int((8 * i) ** 0.5)}.jpg" for i in range(24)]
    rows = [
        dataclasses.replace(row, image=str(data / name))
        for row, name in zip(read_rows(data / "rows.jsonl"), names, strict=True)
    ]
    for number, name in enumerate(dict.fromkeys(names)):
        (data / name).write_bytes(jpeg(number))
    write_rows(rows, data / "rows.jsonl")
    # 8 of 24 are wrong in the first run; in the second, 6 of them become right and 1 other becomes wrong.
    better = dict(SCRIPTS)
    for i in range(0, 18, 3):
        better[QUESTIONS[i]] = "Lima"
    better[QUESTIONS[1]] = "Quito"
    for name, scripts in (("first", SCRIPTS), ("second", better)):
        with served(ScriptedEndpoint(scripts, right=("Lima",))) as url:
            judge = [f"--config.judge.url={url}", "--config.judge.model=j", f"--config.eval.name={name}"]
            assert run(tmp_path, data, url, *settings(*judge)) == 0
    folders = [str(tmp_path / "eval" / name) for name in ("first", "second")]
    assert cli.main(["compare", *folders, "-o", str(tmp_path / "compared.json")]) == 0
    (line,) = json.loads((tmp_path / "compared.json").read_text())
    for found in (line, line["judge"]):
        assert found["accuracy"] == [pytest.approx(16 / 24), pytest.approx(21 / 24)] and found["n"] == 24
        assert (found["only_first"], found["only_second"]) == (1, 6)
        # Two-sided: 2 * (1 + 7) / 2^7.
        assert found["mcnemar_p"] == pytest.approx(16 / 128)
    # The report reads the same samples in another order, and states the same figures.
    evaluations = find_evaluations([tmp_path])
    data = collect(evaluations, PageBudget())
    (pair,) = pairs([(e.label, scored) for e, scored in zip(evaluations, data.scored, strict=True)], main=1)
    assert (pair.difference, pair.ci95, pair.p) == (line["difference"], line["ci95"], line["mcnemar_p"])
    assert "+20.8" in capsys.readouterr().out
    assert cli.main(["compare", folders[0], str(tmp_path)]) == 2
    assert "no evaluation in" in capsys.readouterr().err
    with pytest.raises(DataError, match="no evaluation in"):
        compare_runs(tmp_path, tmp_path)
