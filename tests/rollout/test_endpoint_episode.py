"""Episodes with turns as text: the transcript, the end of a turn, and token ids equal to SFT's."""

import pytest

from mmsearch_jax.core.chat_client import ChatReply
from mmsearch_jax.rollout.endpoint_episode import TextPieces, Transcript, cut_turn
from mmsearch_jax.rollout.episode import Finish
from tests.data.rows import jpeg


def test_a_transcript_spells_text_in_numbers_and_keeps_messages():
    transcript = Transcript(TextPieces(), jpeg())
    for text in ("", "a", "capital of Peru", "这是什么车?", "\ud800 lone", "\U0001f30d x"):
        assert transcript.decode(transcript.encode(text)) == text
    assert len(transcript.encode("x" * 9)) == 3
    transcript.prompt_ids("What?", [0])
    transcript.observation_ids("seen")
    assert [message["role"] for message in transcript.messages] == ["user", "user"]
    assert transcript.messages[0]["content"][1] == {"type": "text", "text": "What?"}


@pytest.mark.parametrize(
    ("reply", "plain", "turn"),
    [
        (
            ChatReply("<reason>r</reason><answer>A</answer> more <answer>B</answer>"),
            False,
            ("<reason>r</reason><answer>A</answer>", Finish.CLOSED),
        ),
        (ChatReply("<reason>r</reason><answer>A", cut=True), False, ("<reason>r</reason><answer>A", Finish.LENGTH)),
        (ChatReply("no tags"), False, ("no tags", Finish.CLOSED)),
        (ChatReply("Lima </answer> x"), True, ("Lima </answer> x", Finish.CLOSED)),
        (ChatReply("Li", cut=True), True, ("Li", Finish.LENGTH)),
    ],
)
def test_a_reply_ends_where_our_engine_would_have_ended_it(reply, plain, turn):
    assert cut_turn(reply, plain=plain) == turn
