"""The report in Chromium: filters, comparison, tokens, hostile text, thousands of episodes, a phone's width, paper."""

import base64
import json

import pytest

from mmsearch_jax.report.page import write_report
from tests.report import synthetic
from tests.report.chromium import browser

pytestmark = pytest.mark.browser
QUESTIONS = "[...document.querySelectorAll('article .question')].map(e => e.textContent.trim())"


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    run = synthetic.small_run(tmp_path_factory.mktemp("run"))
    return write_report(run, run / "report.html")


@pytest.fixture(scope="module")
def tab():
    with browser() as page:
        yield page


@pytest.fixture
def page(tab, report):
    tab.errors.clear()
    tab.requests.clear()
    tab.open(report)
    yield tab
    assert tab.errors == []
    assert set(tab.requests) == {report.resolve().as_uri()}


def numbers(page) -> list[int]:
    """The listed questions."""
    return [int(text.split()[1].rstrip("?")) for text in page.js(QUESTIONS)]


def test_one_evaluation_is_listed_at_first_those_that_tell_most_on_top(page):
    assert numbers(page) == [0, 4, 1, 5, 2, 6, 3, 7]
    assert page.js("document.querySelector('.count').textContent") == "8 of 16 episodes, 8 shown"
    assert page.js("document.querySelector('.more').checkVisibility()") is False


@pytest.mark.parametrize(
    ("choices", "expected"),
    [
        ({"kind": "two_hop"}, [1, 5]),
        ({"outcome": "wrong"}, [4, 3, 7]),
        ({"evaluation": "sft", "outcome": "wrong"}, [4, 1, 3, 7]),
        ({"tool": "no search"}, [3, 7]),
        ({"tool": "whole image"}, None),
        ({"tool": "image and text"}, [1, 5]),
        ({"tool": "crop", "kind": "crop"}, [0, 4]),
        ({"status": "invalid_action"}, [3]),
        ({"evaluation": ""}, [0, 4, 0, 4, 1, 5, 1, 5, 2, 6, 2, 6]),
    ],
)
def test_filters_choose(page, choices, expected):
    if expected is None:
        # No episode used tools in this way, so it is not offered.
        offered = page.js("[...document.querySelector('[data-filter=tool]').options].map(o => o.value)")
        assert set(choices.values()).isdisjoint(offered)
        return
    for name, value in choices.items():
        page.choose(name, value)
    assert numbers(page) == expected


def test_words_are_searched_in_questions_and_in_what_was_read(page):
    def search(words: str) -> None:
        page.js(f"""(() => {{ const field = document.querySelector("input[type=search]"); field.value = {json.dumps(words)};
            field.dispatchEvent(new Event("input")); }})()""")

    search("QUESTION 6?")
    page.until("document.querySelectorAll('article').length === 1")
    assert numbers(page) == [6]
    search("window.owned onload")
    page.until("document.querySelector('article .question')?.textContent.startsWith('Question 0?')")
    assert numbers(page) == [0]


def test_hostile_text_is_shown_and_does_nothing(page):
    page.choose("evaluation", "")
    page.js("document.querySelectorAll('details').forEach(d => d.open = true)")
    page.js("document.querySelectorAll('.hit b').forEach(b => b.click())")
    shown = page.js("document.querySelector('article').textContent")
    assert shown.count(synthetic.HOSTILE) >= 3
    assert page.js("window.owned === undefined") is True
    # Hostile text creates no elements; links only lead to the web and send no referrer.
    assert (
        page.js("document.querySelectorAll('main script, main svg [onload], [onerror], article textarea').length") == 0
    )
    links = page.js("[...document.querySelectorAll('main a')].map(a => [a.protocol, a.rel, a.target])")
    assert links and all(
        p in ("https:", "http:") and r == "noopener noreferrer nofollow" and t == "_blank" for p, r, t in links
    )
    assert page.js("document.querySelector('article').querySelectorAll('a').length") == 0
    images = page.js("[...document.images].map(i => [i.src.slice(0, 23), i.complete && i.naturalWidth > 0])")
    assert images and all(image == ["data:image/jpeg;base64,", True] for image in images)


def test_an_injected_script_is_stopped_by_the_policy_of_the_page(page):
    page.js("""(() => { const s = document.createElement("script"); s.textContent = "window.owned = 9"; document.body.append(s);
        document.querySelector("main").insertAdjacentHTML("beforeend", "<img src=data:, onerror='window.owned=8'>"); })()""")
    page.js("new Promise(done => setTimeout(done, 100))")
    assert page.js("window.owned === undefined") is True
    # Chromium records blocked scripts as errors, which are expected here.
    assert page.errors and all("Content Security Policy" in error for error in page.errors)
    page.errors.clear()


def test_two_evaluations_stand_side_by_side(page):
    page.choose("evaluation", "sft")
    page.choose("against", "grpo")
    page.choose("change", "became right")
    assert numbers(page) == [1]
    sides = page.js("[...document.querySelectorAll('article .side h3')].map(e => e.textContent)")
    answers = page.js("[...document.querySelectorAll('article .answer')].map(e => [e.textContent, e.className])")
    assert sides == ["sft", "grpo"] and answers == [["Quito", "answer wrong"], ["Lima", "answer right"]]
    left, right = page.js(
        "[...document.querySelectorAll('article.pair > .side')].map(e => e.getBoundingClientRect().x)"
    )
    assert left < right
    page.choose("change", "became wrong")
    assert numbers(page) == []


def test_tokens_are_coloured_on_demand(page):
    page.choose("kind", "crop")
    assert page.js("document.querySelectorAll('.tokens').length") == 0
    page.js("document.querySelectorAll('.tokenbar button')[0].click()")
    by_source = page.js(
        "['p', 's', 'o'].map(c => [...document.querySelectorAll('.tokens .' + c)].map(e => e.textContent).join(''))"
    )
    assert by_source[0].startswith("<|im_start|>user\n") and by_source[1] == "<reason>é, so ß</reason>"
    assert "<information>Peru</information>" in by_source[2]
    assert page.js("document.querySelector('.tokens .image').textContent") == "[image: 6 tokens]"
    page.js("document.querySelectorAll('.tokenbar button')[1].click()")
    shades = page.js("[...document.querySelectorAll('.tokens span')].map(e => e.style.backgroundColor).filter(Boolean)")
    assert len(set(shades)) > 3 and page.js("document.querySelector('.tokens [title*=\"log-prob -0.01\"]') !== null")
    page.js("document.querySelectorAll('.tokenbar button')[1].click()")
    assert page.js("document.querySelectorAll('.tokens').length") == 0


def test_the_crop_is_drawn_where_it_was(page):
    place = page.js("""(() => { const f = document.querySelector('.frame').getBoundingClientRect(),
        b = document.querySelector('.box').getBoundingClientRect();
        return [(b.x - f.x) / f.width, (b.y - f.y) / f.height, b.width / f.width, b.height / f.height]; })()""")
    assert place == pytest.approx([0.25, 0.25, 0.25, 0.25], abs=0.01)


@pytest.mark.parametrize("width", [320, 390, 768])
def test_nothing_reaches_beyond_a_small_screen(page, width):
    page.resize(width, 800)
    for against in ("", "sft"):
        page.choose("against", against)
        page.js("[...document.querySelectorAll('.tokenbar button')].forEach(b => b.click())")
        page.js("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert page.js("document.documentElement.scrollWidth") <= width


def test_on_paper_filters_are_gone_and_folds_are_open(page):
    pdf = base64.b64decode(page.call("Page.printToPDF", printBackground=True)["data"])
    assert pdf.startswith(b"%PDF") and len(pdf) > 20_000
    page.call("Emulation.setEmulatedMedia", media="print")
    page.js("dispatchEvent(new Event('beforeprint'))")
    assert page.js("document.querySelector('.filters').checkVisibility()") is False
    assert page.js("[...document.querySelectorAll('details')].every(d => d.open)") is True
    page.js("dispatchEvent(new Event('afterprint'))")
    assert page.js("document.querySelectorAll('details[open]').length") == 0
    page.call("Emulation.setEmulatedMedia", media="")


def test_five_thousand_episodes_load_and_filter(tab, tmp_path):
    run = synthetic.large_run(tmp_path, questions=2500, images=300)
    report = write_report(run, run / "report.html")
    assert report.stat().st_size < 40 << 20
    tab.errors.clear()
    tab.open(report)
    assert tab.js("document.querySelector('.count').textContent") == "2500 of 5000 episodes, 12 shown"
    milliseconds = {}
    for name, value in (("evaluation", ""), ("kind", "two_hop"), ("outcome", "wrong"), ("against", "sft")):
        before = tab.js("performance.now()")
        tab.choose(name, value)
        milliseconds[name] = round(tab.js("performance.now()") - before)
    print(f"{report.stat().st_size / 2**20:.1f} MiB; milliseconds to filter: {milliseconds}")
    listed = tab.js("document.querySelectorAll('article').length")
    tab.js("document.querySelector('.more').click()")
    assert tab.js("document.querySelectorAll('article').length") == listed + 12 == 24
    assert tab.errors == []
