"""The printed episode: complete, and without markup from its text."""

import dataclasses
import io

from PIL import Image
from rich.console import Console

from mmsearch_jax.core.protocol import Answer, ImageSearch, Invalid, TextSearch
from mmsearch_jax.core.search_api import SearchResult
from mmsearch_jax.core.trajectory import Status, ToolRecord, Trajectory, Turn
from mmsearch_jax.evaluation.ask import EpisodePrinter


def printed(trajectory):
    out = io.StringIO()
    EpisodePrinter(Console(file=out, width=100, color_system=None)).update(trajectory)
    return out.getvalue()


def test_every_turn_is_shown_with_call_box_and_result():
    crop = ToolRecord("image_search", "the flag", box=(1, 2, 30, 40), results=(SearchResult("Flag of Peru", ""),))
    turns = [
        Turn("", "which flag?", ImageSearch("the flag"), 0, 1, "<information>[1] Flag of Peru</information>", crop),
        Turn(
            "",
            "and its capital?",
            TextSearch("capital of Peru"),
            1,
            2,
            "<information>[red]Lima[/red]</information>",
            ToolRecord("text_search", "capital of Peru"),
        ),
        Turn("", "there it is", Answer("Lima"), 2, 3),
    ]
    text = printed(Trajectory("t", "r", "g", status=Status.ANSWERED, answer="Lima", turns=turns))
    for part in ("which flag?", "the flag", "(1, 2, 30, 40)", "[1] Flag of Peru", "capital of Peru", "answer Lima"):
        assert part in text
    assert "[red]Lima[/red]" in text


def test_an_episode_without_answer_says_why():
    assert "tool_failed: HTTP 500" in printed(Trajectory("t", "r", "g", status=Status.TOOL_FAILED, error="HTTP 500"))


SEARCH = Turn("", "which flag?", ImageSearch("the flag"), 0, 1)
CROP = ToolRecord("image_search", "the flag", box=(1, 2, 30, 40), elapsed_ms=12.0)


def terminal(out):
    return Console(file=out, width=100, force_terminal=True, color_system=None)


def test_a_turn_is_printed_before_its_search_is_back_and_nothing_twice():
    out = io.StringIO()
    printer = EpisodePrinter(Console(file=out, width=100, color_system=None), environment={})
    trajectory = Trajectory("t", "r", "g", turns=[SEARCH])
    printer.update(trajectory)
    assert "which flag?" in out.getvalue() and "image_search the flag" in out.getvalue()
    trajectory.turns = [dataclasses.replace(SEARCH, observation="<information>Peru</information>", tool=CROP)]
    printer.update(trajectory)
    trajectory.turns = [*trajectory.turns, Turn("", "so", Answer("Lima"), 2, 3)]
    trajectory.status, trajectory.answer = "answered", "Lima"
    printer.update(trajectory)
    text = out.getvalue()
    assert all(text.count(part) == 1 for part in ("which flag?", "the flag", "found at (1, 2, 30, 40), 12 ms", "Lima"))
    assert text.index("which flag?") < text.index("Peru") < text.index("answer Lima")


def test_the_crop_is_saved_named_and_shown_where_the_terminal_can(tmp_path):
    image = Image.new("RGB", (60, 60), (250, 0, 0))
    turn = dataclasses.replace(SEARCH, observation="<information>Peru</information>", tool=CROP)
    trajectory = Trajectory("t", "r", "g", status=Status.ANSWERED, answer="Lima", turns=[turn])
    for environment, shown in ({"TERM": "xterm-kitty"}, "\x1b_Ga=T,f=100,m=0;"), ({"TERM": "dumb"}, None):
        out = io.StringIO()
        EpisodePrinter(terminal(out), image, tmp_path, environment).update(trajectory)
        assert Image.open(tmp_path / "turn1.png").size == (29, 38)
        assert str(tmp_path / "turn1.png") in out.getvalue()
        assert (shown in out.getvalue()) if shown else "\x1b_G" not in out.getvalue()
    piped = io.StringIO()
    EpisodePrinter(Console(file=piped, width=200), image, tmp_path, {"TERM": "xterm-kitty"}).update(trajectory)
    assert "\x1b" not in piped.getvalue()


def test_a_page_cannot_send_the_terminal_a_control_sequence():
    hostile = "\x1b]0;owned\x07\x9b31m\x1b[2J"
    turn = dataclasses.replace(SEARCH, reason=hostile, action=TextSearch(hostile), observation=hostile, tool=None)
    bad = Turn(hostile, None, Invalid("why"), 1, 2)
    text = printed(Trajectory("t", "r", "g", status=Status.TOOL_FAILED, error=hostile, turns=[turn, bad]))
    assert not set(text) & set("\x1b\x07\x9b") and text.count("]0;owned") == 5


def test_the_turn_in_progress_is_shown_on_terminals_alone():
    for console, expected in (terminal(io.StringIO()), True), (Console(file=io.StringIO(), width=100), False):
        printer = EpisodePrinter(console, environment={})
        printer.writing("<reason>I am thinking")
        printer.update(
            Trajectory("t", "r", "g", status=Status.ANSWERED, answer="x", turns=[Turn("", "so", Answer("x"), 0, 1)])
        )
        assert ("I am thinking" in console.file.getvalue()) == expected
