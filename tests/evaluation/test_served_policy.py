"""A policy at an endpoint: what is scored is what it says, not what it thinks."""

from __future__ import annotations

import dataclasses

import pytest

from benchmarks.stand_ins.scripted import CONFIG, FakeTools
from mmsearch_jax.core.chat_endpoint import ChatEndpoint
from mmsearch_jax.core.trajectory import Status
from mmsearch_jax.evaluation.policies import Outcome
from mmsearch_jax.evaluation.served_policy import ServedPolicy
from mmsearch_jax.rollout.scheduler import EpisodeRequest
from tests.data.rows import jpeg
from tests.evaluation.scripted_endpoint import ScriptedEndpoint
from tests.jobs.test_datagen import served

TAGGED = "<reason>So.</reason><answer>Quito</answer>"


@pytest.mark.parametrize(
    ("mode", "reply", "answer"),
    [
        ("direct", "<think>Is it Lima?</think>\n\nQuito", "Quito"),
        ("direct", "Lima is in Peru.\n</think>\nQuito", "Quito"),
        ("policy", f"<think><answer>Lima</answer></think>\n{TAGGED}", "Quito"),
        ("policy", f"<reason>r</reason><answer>Lima</answer></think>{TAGGED}", "Quito"),
        ("policy", "<think><reason>r</reason><answer>Lima</answer>", None),
    ],
)
def test_thoughts_are_no_part_of_the_answer_that_is_scored(mode: str, reply: str, answer: str | None):
    rules = dataclasses.replace(CONFIG, mode=mode)
    ended: list[Outcome] = []
    with served(ScriptedEndpoint({"Which town?": [reply] * 9})) as url:
        policy = ServedPolicy(ChatEndpoint(url, "m"))
        request = EpisodeRequest("q", "q", "Which town?", jpeg())
        policy.play([request], rules, FakeTools(), ended.append, lambda: False)  # pyright: ignore[reportArgumentType]
    (outcome,) = ended
    assert outcome.trajectory.answer == answer
    assert (outcome.trajectory.status == Status.ANSWERED) == (answer is not None)
    assert not any("Lima" in turn.text for turn in outcome.trajectory.turns)
