"""The report: self-contained, and harmless whatever the pages say."""

import dataclasses
import json
import re

import pytest
from PIL import Image

from mmsearch_jax.data.schema import Row
from mmsearch_jax.errors import DataError
from mmsearch_jax.evaluation.scoring import Sample, summarise
from mmsearch_jax.protocol import Answer, ImageSearch, TextSearch
from mmsearch_jax.report.page import write_report
from mmsearch_jax.search_api import SearchResult
from mmsearch_jax.trajectory import ToolRecord, Trajectory, Turn

HOSTILE = '<script>alert("x")</script><img src=x onerror=alert(1)>'


@pytest.fixture
def run(tmp_path):
    image = tmp_path / "scene.jpg"
    Image.new("RGB", (448, 336), (10, 120, 200)).save(image)
    row = Row("r", str(image), f"What is it? {HOSTILE}", ("Paris",), "crop", True)
    tool = ToolRecord(
        "image_search",
        HOSTILE,
        box=(112, 84, 224, 168),
        results=(SearchResult(HOSTILE, HOSTILE, thumbnail_base64='" onerror="x'),),
    )
    broken = ToolRecord("text_search", "q", error="HTTP 500 <b>")
    turns = [
        Turn("", HOSTILE, ImageSearch("the flag"), 0, 1, observation=HOSTILE, tool=tool),
        Turn("", HOSTILE, TextSearch("q"), 0, 1, tool=broken),
        Turn("", "I know", Answer(HOSTILE), 1, 2),
    ]
    sample = Sample(row, Trajectory("t", "r", "g", status="answered", answer=HOSTILE, turns=turns), False)
    folder = tmp_path / "eval" / "grpo"
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps(summarise([sample], name="grpo", mode="policy", seed=3)))
    record = {"correct": False, "row": dataclasses.asdict(row), "trajectory": sample.trajectory.to_json()}
    (folder / "samples.jsonl").write_text(json.dumps(record) + "\n")
    steps = [{"phase": "grpo", "step": i, "reward": i / 10, "accuracy": i / 20} for i in range(12)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
    return tmp_path


def test_the_page_needs_no_network_and_shows_table_curves_and_crop_box(run):
    page = write_report(run, run / "report.html").read_text()
    outside = re.findall(r"""(?:src|href)\s*=\s*["']?(https?:|//)""", page)
    assert not outside
    assert "<svg" in page
    assert "left:25.00%;top:25.00%;width:25.00%;height:25.00%" in page
    assert "data:image/jpeg;base64," in page


def test_hostile_text_is_shown_as_text(run):
    page = write_report(run, run / "report.html").read_text()
    assert page.count("<script") == 1
    assert "script-src 'nonce-" in page
    assert 'alt="" onerror' not in page
    assert 'base64," onerror' not in page
    assert "onerror=alert(1)>" not in page.replace("onerror=alert(1)&gt;", "")
    assert "&lt;script&gt;" in page


def test_a_call_says_how_it_went(run):
    page = write_report(run, run / "report.html").read_text()
    assert "not found: whole image searched" in page
    assert "HTTP 500 &lt;b&gt;" in page


def test_a_moved_runs_missing_images_do_not_stop_the_report(run):
    (run / "scene.jpg").unlink()
    page = write_report(run, run / "report.html").read_text()
    assert "the image is no longer there" in page
    assert "data:image/jpeg;base64,/9j" not in page


def test_damaged_files_are_named_with_their_line(run):
    metrics, samples = run / "metrics.jsonl", run / "eval" / "grpo" / "samples.jsonl"
    samples.write_text("{}\n"[:1])
    with pytest.raises(DataError, match=r"samples.jsonl, line 1: not JSON"):
        write_report(run, run / "report.html")
    samples.unlink()
    metrics.write_text('{"phase": "grpo", "step": 1}\n{"phase"')
    with pytest.raises(DataError, match=r"metrics.jsonl, line 2"):
        write_report(run, run / "report.html")


def test_quickstart_times_and_seed_stand_under_the_title(run):
    (run / "quickstart.json").write_text(json.dumps({"seed": 3, "seconds": {"sft": 81.6, "total": 500.2}}))
    page = write_report(run, run / "report.html").read_text()
    assert "1 questions · seed 3 · sft 82 s · total 500 s" in page


def test_an_empty_folder_is_an_error_that_says_so(tmp_path):
    with pytest.raises(DataError, match="nothing to report"):
        write_report(tmp_path, tmp_path / "report.html")
