"""The oracle ablation: evidence of the mini-world's rows, and of published rows, as observations."""

import asyncio
import json

import pytest

from mmsearch_jax.core.errors import DataError
from mmsearch_jax.core.protocol import Answer, ImageSearch, TextSearch, render_turn
from mmsearch_jax.core.search_api import SearchResult
from mmsearch_jax.data.rows import Placement, Row
from mmsearch_jax.evaluation.oracle import Evidence, OracleTools, given_evidence
from mmsearch_jax.evaluation.samples import read_samples
from mmsearch_jax.jobs.evaluation import miniworld_evidence
from tests.evaluation.scripted_endpoint import ScriptedEndpoint
from tests.evaluation.small_sets import SCRIPTS, write_sets
from tests.evaluation.test_benchmarks import run
from tests.jobs.test_datagen import served


def test_the_mini_worlds_evidence_is_the_title_and_the_lines_of_the_pages():
    evidence = miniworld_evidence()
    box = (1, 2, 30, 40)

    def row(entity, form, attribute):
        return Row(
            "r",
            "i.jpg",
            "q?",
            ("x",),
            "crop",
            True,
            (Placement(entity, box),),
            0,
            {"form": form, "attribute": attribute},
        )

    found = evidence(row("flag-fr", "land", "capital"))
    assert found.image[0].title == "Flag of France" and found.box == box
    assert [(page.title, page.snippet) for page in found.text] == [("France", "Capital: Paris")]
    monument = evidence(row("monument-greatPyramidOfGiza", "monument", "capital"))
    assert monument.image[0].title == "Great Pyramid of Giza"
    assert [page.title for page in monument.text] == ["Great Pyramid of Giza", "Egypt"]
    assert [page.snippet for page in monument.text] == ["Country: Egypt", "Capital: Cairo"]
    assert evidence(row("flag-fr", "count", "")) == Evidence((), (), box)


def test_evidence_of_published_sets_is_what_the_rows_bring():
    hits = {"image": [{"title": "Flag of Peru", "text": ""}], "text": [{"title": "Peru", "text": "Capital: Lima"}]}
    row = Row("r", "i.jpg", "q?", ("Lima",), "", None, meta={"evidence": json.dumps(hits)})
    found = given_evidence(row)
    assert found.image[0].title == "Flag of Peru" and found.text[0].snippet == "Capital: Lima"
    assert given_evidence(Row("r", "i.jpg", "q?", ("Lima",), "", None)) is None
    with pytest.raises(DataError, match=r"row r: meta\['evidence'\]"):
        given_evidence(Row("r", "i.jpg", "q?", ("Lima",), "", None, meta={"evidence": '[{"title": 1}]'}))


def test_whatever_is_asked_the_evidence_comes_back_with_the_gold_box():
    tools = OracleTools(
        Evidence((SearchResult("Flag", ""),), (SearchResult("Peru", "Capital: Lima"),) * 3, (1, 2, 3, 4))
    )
    crop = asyncio.run(tools.image_search(b"", "the flag"))
    assert crop.grounded and crop.box == (1, 2, 3, 4) and crop.results[0].title == "Flag"
    assert asyncio.run(tools.image_search(b"")).box is None
    assert len(asyncio.run(tools.text_search("anything", 2)).results) == 2


def test_the_policy_reads_the_evidence_and_sets_without_any_are_refused(tmp_path, capsys):
    data = write_sets(tmp_path / "data")
    script = [
        render_turn("Who?", ImageSearch(None)),
        render_turn("And?", TextSearch("x")),
        render_turn("So.", Answer("Ada")),
    ]
    with served(ScriptedEndpoint(SCRIPTS | {"Who is painted?": script})) as url:
        assert run(tmp_path, data, url, "--config.only=simplevqa,a_okvqa", "--config.eval.oracle=true") == 0
        assert run(tmp_path / "b", data, url, "--config.only=okvqa", "--config.eval.oracle=true") == 2
    assert "the rows of okvqa have no evidence" in capsys.readouterr().err
    missing = json.loads((tmp_path / "eval/policy/suite.json").read_text())["missing"]
    assert "the rows of a_okvqa have no evidence" in missing["a_okvqa"]
    sample = next(
        s for s in read_samples(tmp_path / "eval/policy/simplevqa") if s["row"]["question"] == "Who is painted?"
    )
    seen = [turn["observation"] for turn in sample["trajectory"]["turns"][:2]]
    assert all("[1] Ada" in text for text in seen)
