"""The teacher's conversations: equal to those of a rollout, and dropped if a rule is broken."""

import asyncio
import dataclasses

import pytest

from mmsearch_jax.core.chat_client import ChatReply
from mmsearch_jax.core.protocol import Answer, ImageSearch, TextSearch, render_turn
from mmsearch_jax.data.rows import Row
from mmsearch_jax.datagen.budget import DatagenBudget
from mmsearch_jax.datagen.conversation import Teacher
from mmsearch_jax.settings.rollout import EpisodeConfig
from tests.data.rows import jpeg
from tests.rollout.replay import RENDERER, CannedTools, assert_sft_reads_what_rollout_read

PICTURE = jpeg()
QUESTION = "What is the capital of this land?"
RULES = EpisodeConfig(
    max_tool_calls=3, max_image_searches=2, max_text_searches=2, observation_max_tokens=50, max_turn_tokens=200
)
CROP = render_turn("Whose flag?", ImageSearch("nothing"))
WHOLE = render_turn("Again.", ImageSearch(None))
SEARCH = render_turn("Velmora's.", TextSearch("Velmora capital"))
ANSWER = render_turn("There it is.", Answer("Ostrin"))


class ScriptedChat:
    """A chat client that returns the texts in order, and keeps the messages of its last call."""

    def __init__(self, *texts):
        self.texts, self.messages = list(texts), []

    async def ask(self, messages, read, **settings):
        self.messages = list(messages)
        return read(ChatReply(self.texts.pop(0)))


def work(*texts, rules=RULES, image=PICTURE):
    chat, tools = ScriptedChat(*texts), CannedTools()
    budget = DatagenBudget({})
    worked = asyncio.run(Teacher(chat, tools, rules, RENDERER, budget).work(QUESTION, image))  # type: ignore[arg-type]
    assert budget.spent["tool_calls"] == tools.calls
    return worked, chat


@pytest.mark.parametrize("style", ["paper", "short"])
def test_sft_token_ids_are_those_of_the_rollout_that_played_the_same_turns(style):
    rules = dataclasses.replace(RULES, prompt_style=style)
    # All three searches, so that the last observation asks for an answer.
    worked, chat = work(CROP, f"\n{WHOLE} and more", SEARCH, ANSWER, rules=rules)
    assert (worked.dropped, worked.answer, len(worked.turns)) == (None, "Ostrin", 4)
    assert worked.turns[1].text == WHOLE
    row = Row("r", PICTURE, QUESTION, ("Ostrin",), "", True, turns=worked.turns)
    assert_sft_reads_what_rollout_read(row, rules)
    # The endpoint was shown the same observations.
    shown = [message["content"] for message in chat.messages if message["role"] == "user"][1:]
    assert all(text.startswith(turn.observation) for text, turn in zip(shown, worked.turns, strict=False))
    assert "Answer now." in shown[-1]


@pytest.mark.parametrize(
    ("texts", "rules", "outcome"),
    [
        ([CROP, WHOLE, WHOLE], RULES, "over_limit"),
        ([SEARCH, SEARCH, CROP, WHOLE], RULES, "too_many_turns"),
        (["no tags"], RULES, "invalid_turn"),
        ([render_turn("long " * 300, Answer("Ostrin"))], RULES, "overlong"),
        ([SEARCH], dataclasses.replace(RULES, max_trajectory_tokens=420), "overlong"),
        ([render_turn("So.", Answer("Unable to answer due to lack of relevant information"))], RULES, "gave_up"),
    ],
)
def test_a_conversation_that_breaks_a_rule_is_dropped_before_another_turn_is_paid_for(texts, rules, outcome):
    worked, chat = work(*texts, rules=rules)
    assert worked.dropped == outcome and not chat.texts


def test_an_image_search_without_an_image_is_over_the_limit():
    worked, chat = work(WHOLE, image=None)
    assert worked.dropped == "over_limit" and "No image search is offered here" in worked.why
    assert [part["type"] for part in chat.messages[0]["content"]] == ["text"]


def test_a_lone_surrogate_in_a_reply_is_no_crash():
    worked, _ = work(ANSWER.replace("There", "\ud800"))
    assert worked.dropped is None and worked.answer == "Ostrin"
