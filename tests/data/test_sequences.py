"""What of a conversation is trained."""

import dataclasses

import pytest
import tokenizers

from mmsearch_jax.data.chat import ChatRenderer
from mmsearch_jax.data.rows import ConversationTurn, Row
from mmsearch_jax.data.sequences import SequenceBuilder
from mmsearch_jax.models.config import ModelConfig

RENDERER = ChatRenderer(tokenizers.Tokenizer.from_file("assets/tiny-base/tokenizer.json"))
CONFIG = dataclasses.replace(ModelConfig(), image_token_id=RENDERER.image_pad)
FIRST = "<reason>I must look.</reason><text_search>capital of Peru</text_search>"
LAST = "<reason>I know.</reason><answer>Lima</answer>"


@pytest.mark.parametrize("train_end", [False, True])
def test_the_end_of_every_turn_is_trained_where_it_is_asked_for(train_end):
    row = Row(
        "1",
        "",
        "Where?",
        ("Lima",),
        "",
        None,
        turns=(ConversationTurn(FIRST, "<information>Lima</information>"), ConversationTurn(LAST)),
    )
    sequence = SequenceBuilder(RENDERER, CONFIG, train_end=train_end).conversation(row, "short", [])
    plain = SequenceBuilder(RENDERER, CONFIG).conversation(row, "short", [])
    trained = [i for i, weight in zip(sequence.token_ids, sequence.loss_weights, strict=True) if weight]
    ends = [RENDERER.im_end] if train_end else []
    assert trained == [*RENDERER.encode(FIRST), *ends, *RENDERER.encode(LAST), *ends]
    # The policy reads the same tokens either way; only the last end is new.
    assert list(sequence.token_ids) == [*plain.token_ids, *ends]
