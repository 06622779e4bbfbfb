"""The report: self-contained, complete, and safe with hostile pages. test_browser.py tests it in a browser."""

import base64
import gzip
import json
import re

import pytest
from matplotlib.axes import Axes

from mmsearch_jax.core.errors import DataError
from mmsearch_jax.evaluation.samples import Stamp
from mmsearch_jax.report.curves import _plot
from mmsearch_jax.report.page import write_report
from mmsearch_jax.report.viewer_data import PageBudget
from tests.report import synthetic


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return synthetic.small_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def page(run):
    return write_report(run, run / "report.html").read_text()


def embedded(page: str, name: str):
    text = re.search(f'<script type="application/json" id="{name}">(.*?)</script>', page, re.DOTALL)[1]
    return json.loads(gzip.decompress(base64.b64decode(text)) if name == "episodes" else text)


def test_the_page_needs_no_network_and_shows_table_comparison_tool_use_and_curves(page):
    assert not re.findall(r"""(?:src|href)\s*=\s*["']?(https?:|//)""", page)
    assert not re.findall(r"""url\((?!#)|@import|<link""", page)
    for part in ("<svg", "McNemar", "sft → grpo", "crop only", "62.5", "[52.5, 72.5]", "2 of 3", "37.5 %", "0.0125"):
        assert part in page


def test_only_the_pages_own_script_may_run_and_hostile_text_is_in_no_markup(page):
    scripts = re.findall(r"<script([^>]*)>", page)
    assert len([s for s in scripts if "application/json" not in s]) == 1
    nonce = re.search(r"script-src 'nonce-([0-9a-f]{32})'", page)[1]
    assert f'<script nonce="{nonce}">' in page and "default-src 'none'" in page
    assert "window.owned" not in page
    for name in ("page.css", "viewer.js", "tokens.js", "browser.js"):
        own = (synthetic.TINY_BASE.parents[1] / "mmsearch_jax" / "report" / name).read_text()
        assert own in page and not re.search(
            r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|\.on\w+\s*=", own
        )


def test_a_hostile_name_is_escaped(tmp_path):
    sample = synthetic.episode(0, synthetic.picture(tmp_path, 0), True)
    folder = synthetic.write_evaluation(tmp_path, "x", [sample], benchmark="<b>bench</b>")
    (folder / "summary.json").write_text(
        json.dumps({**synthetic.summary("x", [sample], "<b>bench</b>"), "name": synthetic.HOSTILE})
    )
    page = write_report(tmp_path, tmp_path / "report.html").read_text()
    assert "<script>window.owned" not in page and "&lt;script&gt;window.owned" in page and "<b>bench" not in page


def test_every_episode_is_there_with_its_turns_and_calls(page):
    data = embedded(page, "episodes")
    assert len(data["episodes"]) == 16 and [e["label"] for e in data["evaluations"]] == ["sft", "grpo"]
    hostile = next(e for e in data["episodes"] if e["id"] == "q0")
    assert hostile["answer"] == synthetic.HOSTILE and hostile["tools"] == ["crop"]
    assert hostile["turns"][0]["box"] == [112, 84, 224, 168] and hostile["turns"][0]["how"] == "searched the box"
    broken = next(e for e in data["episodes"] if e["id"] == "q3")
    assert (broken["outcome"], broken["status"], broken["answer"]) == ("wrong", "invalid_action", None)
    assert broken["turns"][0]["text"].startswith("word")


def test_an_image_of_several_episodes_is_embedded_once(page):
    images, data = embedded(page, "images"), embedded(page, "episodes")
    assert len(images) == 8 and len(embedded(page, "thumbnails")) == 1
    of_question = {(e["id"], e["image"]) for e in data["episodes"]}
    assert len(of_question) == 8 and [image[:2] for image in images] == [[448, 336]] * 8


def test_tokens_carry_origin_and_log_probs(page):
    data = embedded(page, "episodes")
    tokens = next(e["tokens"] for e in data["episodes"] if e["tokens"])
    written = synthetic.with_tokens({"trajectory": {}})["trajectory"]
    assert (
        -6 in tokens["t"]
        and sum(count for _, count in tokens["p"]) == len(tokens["t"]) == len(written["token_ids"]) - 5
    )
    pairs = zip(written["logprobs"], written["provenance"], strict=True)
    assert tokens["l"] == [round(100 * logprob) for logprob, source in pairs if source == 1]
    spelt = b"".join(
        s.encode() if isinstance(s, str) else bytes(s) for s in (data["spellings"][t] for t in tokens["t"] if t >= 0)
    )
    assert "<reason>é, so ß</reason>" in spelt.decode() and b"<|im_start|>user" in spelt


def test_what_does_not_fit_is_left_out_and_said(run, tmp_path):
    budget = PageBudget(image_bytes=1, thumbnail_bytes=1, tokens=2, observation_chars=50)
    page = write_report(run, tmp_path / "small.html", budget=budget).read_text()
    assert "1 of 8 images are embedded" in page and "thumbnails of results are left out" in page
    assert "Tokens of 2 episodes are left out" in page
    data = embedded(page, "episodes")
    # The one image belongs to a question on which the evaluations disagree.
    assert {e["id"] for e in data["episodes"] if e["image"] is not None} == {"q1"}
    assert all(len(t.get("observation", "")) < 80 for e in data["episodes"] for t in e["turns"])


def test_several_runs_are_compared(run, tmp_path):
    second = tmp_path / "second"
    synthetic.write_evaluation(
        second, "grpo", [synthetic.episode(i, str(run / "images" / f"{i}.jpg"), True) for i in range(8)]
    )
    synthetic.write_metrics(second, 0.3)
    page = write_report([run, second], tmp_path / "both.html").read_text()
    assert f"{run.name}: grpo" in page and "second: grpo" in page and "→ second: grpo" in page


def test_several_benchmarks_make_the_papers_table(run, tmp_path):
    for benchmark in ("infoseek", "dynvqa"):
        samples = [synthetic.episode(i, str(run / "images" / f"{i}.jpg"), i < 4) for i in range(8)]
        synthetic.write_evaluation(tmp_path, "grpo", samples, benchmark, below=benchmark)
    page = write_report(tmp_path, tmp_path / "report.html").read_text()
    table = page[page.index("All benchmarks") : page.index("</table>")]
    assert "<th>dynvqa</th><th>infoseek</th>" in table and table.count("37.5") == 3


def test_of_several_lines_the_last_sound_one_counts_and_a_torn_one_does_not(tmp_path):
    image = synthetic.picture(tmp_path, 0)
    first, again = (synthetic.episode(0, image, right) for right in (False, True))
    broken = {**first, "correct": None}
    folder = synthetic.write_evaluation(tmp_path, "grpo", [first])
    (folder / "samples.jsonl").write_text(f"{json.dumps(first)}\n{json.dumps(again)}\n" + json.dumps(first)[:40])
    (folder / "samples-1-of-2.jsonl").write_text(json.dumps(broken) + "\n")
    data = embedded(write_report(tmp_path, tmp_path / "report.html").read_text(), "episodes")
    assert [e["outcome"] for e in data["episodes"]] == ["right"]


def test_a_moved_runs_missing_images_do_not_stop_the_report(tmp_path):
    run = synthetic.small_run(tmp_path)
    (run / "images" / "0.jpg").unlink()
    page = write_report(run, run / "report.html").read_text()
    assert "1 images are missing" in page and len(embedded(page, "images")) == 7


def test_an_image_beside_the_samples_is_found_and_none_is_fetched(tmp_path):
    sample, other = synthetic.episode(0, "images/0.jpg", True), synthetic.episode(1, "http://127.0.0.1:9/x.jpg", True)
    folder = synthetic.write_evaluation(tmp_path, "grpo", [sample, other])
    synthetic.picture(folder / "images", 0)
    assert len(embedded(write_report(tmp_path, tmp_path / "report.html").read_text(), "images")) == 1


def test_damaged_files_are_named_with_their_line(tmp_path):
    folder = synthetic.write_evaluation(tmp_path, "grpo", [synthetic.episode(0, "gone.jpg", True)])
    (folder / "samples.jsonl").write_text("{\n")
    with pytest.raises(DataError, match=r"samples.jsonl, line 1: not JSON"):
        write_report(tmp_path, tmp_path / "report.html")
    (folder / "samples.jsonl").unlink()
    (tmp_path / "metrics.jsonl").write_text('{"phase": "grpo", "step": 1}\n{"phase"')
    with pytest.raises(DataError, match=r"metrics.jsonl, line 2"):
        write_report(tmp_path, tmp_path / "report.html")


def test_quickstart_times_and_seed_stand_under_the_title(tmp_path):
    synthetic.write_evaluation(tmp_path, "grpo", [synthetic.episode(0, "gone.jpg", True)])
    (tmp_path / "quickstart.json").write_text(json.dumps({"seed": 3, "seconds": {"sft": 81.6, "total": 500.2}}))
    page = write_report(tmp_path, tmp_path / "report.html").read_text()
    assert "1 questions · seed 3 · sft 82 s · total 500 s" in page


def test_an_empty_folder_is_an_error_that_says_so(run, tmp_path):
    with pytest.raises(DataError, match="nothing to report"):
        write_report(tmp_path, tmp_path / "report.html")
    with pytest.raises(DataError, match=f"nothing to report in {tmp_path}"):
        write_report([run, tmp_path], tmp_path / "report.html")


def test_every_plot_is_an_image_with_a_text_alternative_and_its_axes_are_named(page, monkeypatch):
    plots = re.findall(r"<svg [^>]*?role=\"img\"><title>(.*?)</title>", page)
    assert len(plots) == page.count("<svg ") == 2
    # The reward grows by 0.1 a step, from 0; a tenth of twelve steps is smoothed over one.
    assert "GRPO: reward: 0 at step 0, 1.1 at step 11" in plots
    bars = re.findall(r'<span class="stack" role="img" aria-label="([^"]*)"', page)
    assert len(bars) == page.count('class="stack"') and all("%" in bar for bar in bars)
    drawn = []
    axes = Axes
    for name in ("set_xlabel", "set_ylabel"):
        own = getattr(axes, name)
        monkeypatch.setattr(axes, name, lambda axis, text, own=own: (drawn.append(text), own(axis, text))[1])
    _plot({"run": [(1, 0.5), (2, 0.75)]}, "nats per token")
    assert drawn == ["step", "nats per token"]


def test_each_evaluation_is_explained_with_its_ablation(tmp_path):
    image = synthetic.picture(tmp_path, 0)
    folder = synthetic.write_evaluation(tmp_path, "grpo_no_crop", [synthetic.episode(0, image, True)])
    synthetic.write_evaluation(tmp_path, "grpo", [synthetic.episode(0, image, True)])
    Stamp({"episode.allow_crop": False, "episode.allow_text": True}, "match", {}, ["q0"], 1).write(folder)
    page = write_report(tmp_path, tmp_path / "report.html").read_text()
    replaced = "each crop search is replaced by a whole-image search"
    assert re.search(f"<dt>grpo_no_crop</dt><dd>[^<]*{replaced}", page) and page.count(replaced) == 1
    assert re.search("<dt>grpo</dt><dd>decides itself when", page)


def test_each_table_says_on_a_phone_that_it_scrolls(page):
    assert page.count('<p class="swipe">') == page.count("<table>") >= 3


def luminance(colour: str) -> float:
    """Relative luminance of "#rgb" or "#rrggbb" (WCAG 2.1)."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_text_is_readable_in_the_light_and_in_the_dark():
    css = (synthetic.TINY_BASE.parents[1] / "mmsearch_jax" / "report" / "page.css").read_text()
    light, dark = (dict(re.findall(r"--([\w-]+): (#\w+)", part)) for part in css.split("prefers-color-scheme: dark", 1))
    assert light.keys() == dark.keys()
    for colours in (light, dark):
        for text, grounds in {
            "ink": ("paper", "ground", "differs", "sampled", "observed"),
            "soft": ("paper", "ground", "image"),
            "blue": ("paper",),
            "good": ("paper", "good-ground"),
            "bad": ("paper", "bad-ground"),
            "failed": ("failed-ground",),
        }.items():
            for ground in grounds:
                high, low = sorted((luminance(colours[text]), luminance(colours[ground])), reverse=True)
                assert (high + 0.05) / (low + 0.05) >= 4.5, (text, ground)
