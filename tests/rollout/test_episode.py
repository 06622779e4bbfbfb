"""The episode's state machine, driven by hand: endings, limits, budgets, and ids equal to SFT's rendering."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.stand_ins import tiny_tokenizer
from mmsearch_jax.core import protocol
from mmsearch_jax.core.errors import ConfigError
from mmsearch_jax.core.protocol import Answer, ImageSearch, Invalid, TextSearch, render_turn
from mmsearch_jax.core.search_api import SearchReply, SearchResult
from mmsearch_jax.core.trajectory import OBSERVATION, SAMPLED, Status, Trajectory
from mmsearch_jax.data.chat import ChatRenderer
from mmsearch_jax.rollout.episode import CallTool, Done, Episode, Finish, Generate, Generation, observe
from mmsearch_jax.settings.rollout import EpisodeConfig

RENDERER = ChatRenderer(tiny_tokenizer.build())
CONFIG = EpisodeConfig(prompt_style="short", max_trajectory_tokens=2000, max_turn_tokens=300, max_tool_calls=3)
REPLY = SearchReply((SearchResult("Peru", "Capital: Lima"),), "text_search", elapsed_ms=2.0)
SEARCH = render_turn("Hm.", TextSearch("capital of Peru"))
WHOLE = render_turn("Hm.", ImageSearch(None))
CROP = render_turn("Hm.", ImageSearch("the flag"))
ANSWER = render_turn("So.", Answer("Lima"))


def start(**changes) -> Episode:
    config = dataclasses.replace(CONFIG, **changes)
    return Episode(Trajectory("t", "r", "g"), "Where?", [(1, 4, 4)], [4], config, RENDERER)


def wrote(text, finish=Finish.CLOSED, forced=()) -> Generation:
    ids = RENDERER.action_ids(text) + ([RENDERER.im_end] if finish == Finish.STOP else [])
    return Generation(ids, [-1.0] * len(ids), finish, forced)


def test_an_answer_ends_the_episode():
    episode = start()
    assert episode.begin() == Generate(300)
    assert episode.generated(wrote(ANSWER)) == Done()
    assert (episode.trajectory.status, episode.trajectory.answer) == (Status.ANSWERED, "Lima")


def test_ids_of_a_rollout_equal_the_sft_rendering_of_the_same_conversation():
    for style in protocol.PROMPT_STYLES:
        episode = start(prompt_style=style, max_trajectory_tokens=4000)
        episode.begin()
        episode.generated(wrote(CROP))
        reply = dataclasses.replace(REPLY, grounded=True, box=(0, 0, 5, 5))
        episode.observed(ImageSearch("the flag"), reply)
        episode.generated(wrote(SEARCH))
        episode.observed(TextSearch("capital of Peru"), REPLY)
        episode.generated(wrote(ANSWER))
        actions = (ImageSearch("the flag"), TextSearch("capital of Peru"))
        user = [observe(episode.config, RENDERER, action, REPLY.results)[1] for action in actions]
        rendered = RENDERER.conversation(
            protocol.first_turn_prompt("Where?", style), [(CROP, user[0]), (SEARCH, user[1]), (ANSWER, None)], [4]
        )
        assert episode.trajectory.token_ids == rendered.token_ids
        assert episode.trajectory.provenance == rendered.provenance


def test_turns_tell_where_their_tokens_are_and_what_came_back():
    episode = start()
    episode.begin()
    assert episode.generated(wrote(SEARCH)) == CallTool(TextSearch("capital of Peru"), 5)
    assert isinstance(episode.observed(TextSearch("capital of Peru"), REPLY), Generate)
    episode.generated(wrote(ANSWER))
    for turn, text in zip(episode.trajectory.turns, (SEARCH, ANSWER), strict=True):
        assert RENDERER.decode(episode.trajectory.token_ids[turn.start : turn.end]) == text == turn.text
    first = episode.trajectory.turns[0]
    assert first.observation == "<information>[1] Peru: Capital: Lima</information>"
    assert first.tool is not None and first.tool.results == REPLY.results and first.tool.elapsed_ms == 2.0


@pytest.mark.parametrize(("turn", "action"), [(WHOLE, ImageSearch(None)), (CROP, ImageSearch("the flag"))])
def test_a_second_image_search_is_refused_and_counts_as_a_turn(turn, action):
    episode = start()
    episode.begin()
    episode.generated(wrote(turn))
    episode.observed(action, REPLY)
    need = episode.generated(wrote(turn))
    assert isinstance(need, Generate)
    second = episode.trajectory.turns[1]
    assert second.tool is not None and second.tool.refused and "is left: 1 allowed" in (second.observation or "")
    assert len(episode.trajectory.tool_calls("image_search")) == 1


@pytest.mark.parametrize(
    ("changes", "turn"),
    [({"allow_text": False}, SEARCH), ({"allow_image": False}, WHOLE), ({"allow_image": False}, CROP)],
)
def test_a_tool_that_is_not_offered_says_so(changes, turn):
    episode = start(**changes)
    episode.begin()
    assert isinstance(episode.generated(wrote(turn)), Generate)
    assert "is offered here" in (episode.trajectory.turns[0].observation or "")


def test_without_crops_the_whole_image_is_searched():
    episode = start(allow_crop=False)
    episode.begin()
    need = episode.generated(wrote(CROP))
    assert isinstance(need, CallTool) and need.action == ImageSearch(None)
    assert isinstance(episode.observed(need.action, REPLY), Generate)
    record = episode.trajectory.turns[0].tool
    assert record is not None and record.query is None and not record.refused


def test_the_last_turn_must_answer_and_is_told_so():
    episode = start(max_tool_calls=1)
    episode.begin()
    episode.generated(wrote(SEARCH))
    episode.observed(TextSearch("capital of Peru"), REPLY)
    assert protocol.LAST_TURN_NOTE in (episode.trajectory.turns[0].observation or "")
    assert episode.generated(wrote(SEARCH)) == Done()
    assert episode.trajectory.status == Status.NO_ANSWER


def test_invalid_turns_end_the_episode_or_are_corrected():
    episode = start()
    episode.begin()
    assert episode.generated(wrote("Lima", Finish.STOP)) == Done()
    assert episode.trajectory.status == Status.INVALID_ACTION
    episode = start(on_invalid="correct")
    episode.begin()
    assert isinstance(episode.generated(wrote("Lima", Finish.STOP)), Generate)
    assert isinstance(episode.trajectory.turns[0].action, Invalid)
    assert "<|im_end|><|im_end|>" not in RENDERER.decode(episode.trajectory.token_ids)
    episode.generated(wrote("<answer>Lima</answer>"))
    assert "<answer>Lima</answer><|im_end|>\n" in RENDERER.decode(episode.trajectory.token_ids)
    assert episode.generated(wrote(ANSWER)) == Done()
    assert episode.trajectory.status == Status.ANSWERED


def test_endless_corrections_end_without_an_answer():
    episode = start(on_invalid="correct", max_tool_calls=2)
    episode.begin()
    needs = [episode.generated(wrote("Lima", Finish.STOP)) for _ in range(3)]
    assert needs[-1] == Done() and episode.trajectory.status == Status.NO_ANSWER


def test_a_turn_cut_at_its_budget_is_overlong():
    episode = start()
    episode.begin()
    assert episode.generated(wrote("<reason>on and on", Finish.LENGTH)) == Done()
    assert episode.trajectory.status == Status.OVERLONG and episode.trajectory.answer is None


def test_the_turn_budget_never_exceeds_the_trajectory():
    episode = start(max_trajectory_tokens=100)
    need = episode.begin()
    assert need == Generate(100 - len(episode.trajectory.token_ids))
    assert start(max_trajectory_tokens=5).begin() == Done()


def test_an_observation_that_does_not_fit_is_not_admitted_at_all():
    episode = start(max_trajectory_tokens=150)
    episode.begin()
    episode.generated(wrote(SEARCH))
    before = list(episode.trajectory.token_ids)
    long = SearchReply((SearchResult("Peru", "word " * 200),), "text_search")
    assert episode.observed(TextSearch("capital of Peru"), long) == Done()
    assert episode.trajectory.status == Status.OVERLONG and episode.trajectory.token_ids == before
    assert episode.trajectory.turns[0].tool is not None and episode.trajectory.turns[0].observation is None


@settings(deadline=None, max_examples=30)
@given(st.integers(20, 80), st.text(max_size=300))
def test_an_observation_is_cut_to_its_budget_and_closed(budget, snippet):
    config = dataclasses.replace(CONFIG, observation_max_tokens=budget)
    results = [SearchResult("Title", snippet)]
    observation, _ = observe(config, RENDERER, TextSearch("q"), results)
    assert len(RENDERER.encode(observation)) <= budget
    assert observation.endswith("</information>")


def test_a_crop_that_was_not_found_says_so():
    episode = start()
    episode.begin()
    episode.generated(wrote(CROP))
    episode.observed(ImageSearch("the flag"), REPLY)
    assert protocol.NOT_FOUND_NOTE in (episode.trajectory.turns[0].observation or "")


def test_a_broken_tool_ends_the_episode_as_such():
    episode = start()
    episode.begin()
    episode.generated(wrote(SEARCH))
    assert episode.fail(Status.TOOL_FAILED, "HTTP 500") == Done()
    assert episode.trajectory.infrastructure_failure and episode.trajectory.error == "HTTP 500"
    tool = episode.trajectory.turns[0].tool
    assert tool is not None and tool.error == "HTTP 500"


def test_forced_tokens_are_part_of_the_turn_but_not_trained():
    episode = start()
    episode.begin()
    ids = RENDERER.action_ids(ANSWER)
    generation = Generation(ids[:-1], [-1.0] * (len(ids) - 1), Finish.CLOSED, ids[-1:])
    assert episode.generated(generation) == Done()
    assert episode.trajectory.answer == "Lima"
    assert episode.trajectory.provenance[-2:] == [SAMPLED, OBSERVATION]


def test_a_direct_answer_is_plain_text_closed_by_end_of_message():
    episode = start(mode="direct")
    episode.begin()
    assert "Where?<|im_end|>" in RENDERER.decode(episode.trajectory.token_ids)
    assert episode.generated(wrote("Lima", Finish.STOP)) == Done()
    assert (episode.trajectory.status, episode.trajectory.answer) == (Status.ANSWERED, "Lima")
    assert episode.trajectory.token_ids[-1] == RENDERER.im_end
    assert episode.trajectory.provenance[-1] == SAMPLED


def test_an_empty_direct_answer_is_none():
    episode = start(mode="direct")
    episode.begin()
    episode.generated(wrote("", Finish.STOP))
    assert episode.trajectory.status == Status.NO_ANSWER


def test_the_rag_workflow_searches_the_image_then_the_web_and_then_answers():
    episode = start(mode="rag")
    assert episode.begin() == CallTool(ImageSearch(None), 5)
    hit = SearchReply((SearchResult("Flag of Peru", "Red and white."),), "image_search")
    assert episode.observed(ImageSearch(None), hit) == CallTool(TextSearch("Flag of Peru Where?"), 5)
    assert isinstance(episode.observed(TextSearch("Flag of Peru Where?"), REPLY), Generate)
    prompt = RENDERER.decode(episode.trajectory.token_ids)
    assert "[1] Flag of Peru: Red and white.\n[1] Peru: Capital: Lima\nWhere?" in prompt
    assert not any(episode.trajectory.loss_mask)
    assert episode.generated(wrote("Lima", Finish.STOP)) == Done()
    assert len(episode.trajectory.tool_calls()) == 2 and episode.trajectory.answer == "Lima"


def test_unknown_settings_are_refused():
    for changes in ({"mode": "x"}, {"on_invalid": "x"}, {"prompt_style": "x"}):
        with pytest.raises(ConfigError, match="is 'x': use"):
            start(**changes)


def test_without_an_image_image_search_is_refused_and_rag_begins_with_the_question():
    def bare(**changes):
        config = dataclasses.replace(CONFIG, **changes)
        return Episode(Trajectory("t", "r", "g"), "Where?", [], [], config, RENDERER, has_image=False)

    for turn in (WHOLE, CROP):
        episode = bare()
        episode.begin()
        assert isinstance(episode.generated(wrote(turn)), Generate)
        assert episode.trajectory.turns[0].tool.refused and "offered here" in episode.trajectory.turns[0].observation
    episode = bare(mode="rag")
    assert episode.begin() == CallTool(TextSearch("Where?"), 5)
    assert isinstance(episode.observed(TextSearch("Where?"), REPLY), Generate)
    assert RENDERER.image_pad not in episode.trajectory.token_ids
