"""The printed episode: complete, and never markup."""

import io

from rich.console import Console

from mmsearch_jax.evaluation.ask import print_episode
from mmsearch_jax.protocol import Answer, ImageSearch, TextSearch
from mmsearch_jax.search_api import SearchResult
from mmsearch_jax.trajectory import ToolRecord, Trajectory, Turn


def printed(trajectory):
    out = io.StringIO()
    print_episode(trajectory, Console(file=out, width=100, color_system=None))
    return out.getvalue()


def test_every_turn_is_shown_with_call_box_and_result():
    crop = ToolRecord("image_search", "the flag", box=(1, 2, 30, 40), results=(SearchResult("Flag of Peru", ""),))
    turns = [
        Turn("", "which flag?", ImageSearch("the flag"), 0, 1, "<information>[1] Flag of Peru</information>", crop),
        Turn("", "and its capital?", TextSearch("capital of Peru"), 1, 2, "<information>[red]Lima[/red]</information>",
             ToolRecord("text_search", "capital of Peru")),
        Turn("", "there it is", Answer("Lima"), 2, 3),
    ]  # fmt: skip
    text = printed(Trajectory("t", "r", "g", status="answered", answer="Lima", turns=turns))
    for part in ("which flag?", "the flag", "(1, 2, 30, 40)", "[1] Flag of Peru", "capital of Peru", "answer Lima"):
        assert part in text
    assert "[red]Lima[/red]" in text


def test_an_episode_without_answer_says_why():
    assert "tool_failed: HTTP 500" in printed(Trajectory("t", "r", "g", status="tool_failed", error="HTTP 500"))
