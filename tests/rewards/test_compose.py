"""The reward's formula, and the trajectories that it does not score."""

import pytest

from mmsearch_jax.core.protocol import Answer, ImageSearch, Invalid, TextSearch
from mmsearch_jax.core.trajectory import Status, ToolRecord, Trajectory, Turn
from mmsearch_jax.data.rows import Row
from mmsearch_jax.rewards.compose import overlong_penalty, reward, well_formed
from mmsearch_jax.settings.learning import RewardConfig

ROW = Row("r", "i.jpg", "Where is it?", ("Paris",), "crop", True)


def answered(answer):
    """An episode on `ROW` with one turn."""
    return episode(Answer(answer), answer=answer)


def episode(*actions, status=Status.ANSWERED, answer: str | None = "Paris", refused=False):
    trajectory = Trajectory("t", "r", "g", status=status, answer=answer)
    for action in actions:
        called = isinstance(action, TextSearch | ImageSearch)
        tool = ToolRecord("text_search", refused=refused) if called else None
        trajectory.turns.append(Turn("", None, action, 0, 0, tool=tool))
    return trajectory


@pytest.mark.parametrize(
    ("trajectory", "expected"),
    [
        (episode(Answer("Paris")), 1.0),
        (episode(TextSearch("q"), TextSearch("q"), Answer("Paris")), 1.0),
        (episode(Answer("Rome"), answer="Rome"), 0.1),
        (episode(Invalid("x"), Answer("Paris")), 0.9),
        (episode(TextSearch("q"), Answer("Paris"), refused=True), 0.9),
        (episode(Invalid("x"), status=Status.INVALID_ACTION, answer=None), 0.0),
        (episode(TextSearch("q"), status=Status.NO_ANSWER, answer=None), 0.0),
        (episode(status=Status.OVERLONG, answer=None), 0.0),
    ],
)
def test_the_reward_is_the_weighted_sum_of_match_and_format(trajectory, expected):
    assert reward(trajectory, ["Paris"])[0] == pytest.approx(expected)


def test_the_parts_are_told():
    total, parts = reward(episode(TextSearch("q"), Answer("Paris")), ["Paris"], RewardConfig(0.2, 0.1))
    assert total == pytest.approx(0.8 * 0.9 + 0.2)
    assert parts == {"match": 1.0, "format": 1.0, "searched": 1.0}


@pytest.mark.parametrize("status", [Status.TOOL_FAILED, Status.JUDGE_FAILED, Status.DEADLINE, Status.RUNNING])
def test_a_broken_tool_is_not_a_wrong_answer(status):
    with pytest.raises(ValueError, match="drop it"):
        reward(episode(TextSearch("q"), status=status, answer=None), ["Paris"])


def test_an_answer_outside_an_answered_episode_does_not_count():
    assert reward(episode(Answer("Paris"), status=Status.OVERLONG), ["Paris"])[1]["match"] == 0.0
    assert not well_formed(episode(status=Status.ANSWERED))


@pytest.mark.parametrize(("tokens", "expected"), [(70, 0.0), (80, 0.0), (85, -0.25), (100, -1.0), (130, -1.0)])
def test_overlong_episodes_are_punished_softly(tokens, expected):
    # DAPO, eq. 13, with a limit of 100 tokens and a buffer of 20.
    assert overlong_penalty(tokens, 100, 20) == pytest.approx(expected)
    made = answered("Paris")
    made.token_ids = [1] * tokens
    total, parts = reward(made, ["Paris"], RewardConfig(overlong_buffer=20), max_tokens=100)
    assert total == pytest.approx(1.0 + expected) and parts["overlong"] == pytest.approx(expected)
