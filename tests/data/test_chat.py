"""Chat rendering: equal to the chat template of Qwen2.5-VL; control tokens inside text have no effect."""

import itertools

import jinja2
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.stand_ins import tiny_tokenizer
from mmsearch_jax.core import protocol, search_api
from mmsearch_jax.core.errors import DataError
from mmsearch_jax.core.trajectory import OBSERVATION, PROMPT, SAMPLED
from mmsearch_jax.data.chat import TEMPLATE, ChatRenderer

TOKENIZER = tiny_tokenizer.build()
RENDERER = ChatRenderer(TOKENIZER)
PIECES = [*tiny_tokenizer.CONTROLS, "<|im_", "end|>", "user\n", "</information>", "<answer>", "é", "中", " ", "\n", "a"]
NASTY = st.lists(st.sampled_from(PIECES)).map("".join)
ACTION = "<reason>I must look.</reason><text_search>capital of Peru</text_search>"
FINAL = "<reason>I know.</reason><answer>Lima</answer>"
OBSERVED = "<information>[1] Peru: Capital: Lima</information>"


def test_ids_equal_those_of_the_whole_text_read_with_its_control_tokens():
    rendered = RENDERER.conversation("What?", [(ACTION, OBSERVED), (FINAL, None)], [3], system="Be brief.")
    assert RENDERER.decode(rendered.token_ids) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n<|vision_start|><|image_pad|>"
        f"<|image_pad|><|image_pad|><|vision_end|>What?<|im_end|>\n<|im_start|>assistant\n{ACTION}<|im_end|>\n"
        f"<|im_start|>user\n{OBSERVED}<|im_end|>\n"
        f"<|im_start|>assistant\n{FINAL}"
    )
    prompt = RENDERER.prompt_ids("What?", [2])
    assert prompt == TOKENIZER.encode(RENDERER.decode(prompt)).ids


def test_a_conversation_is_the_concatenation_of_what_rollout_appends():
    parts = [
        RENDERER.prompt_ids("What?", [3]),
        RENDERER.action_ids(ACTION),
        RENDERER.observation_ids(OBSERVED),
        RENDERER.action_ids(FINAL),
    ]
    rendered = RENDERER.conversation("What?", [(ACTION, OBSERVED), (FINAL, None)], [3])
    assert rendered.token_ids == sum(parts, [])
    sources = [PROMPT, SAMPLED, OBSERVATION, SAMPLED]
    assert rendered.provenance == [s for s, part in zip(sources, parts, strict=True) for _ in part]


def test_only_actions_are_trained_and_they_end_with_their_closing_tag():
    rendered = RENDERER.conversation("What?", [(ACTION, OBSERVED), (FINAL, None)], [3])
    trained = [i for i, mask in zip(rendered.token_ids, rendered.loss_mask, strict=True) if mask]
    assert RENDERER.decode(trained) == ACTION + FINAL


def test_a_plain_dialogue_trains_its_end_of_message_and_writes_it_once():
    rendered = RENDERER.conversation("Hi", [("one", "next"), ("two", None)], plain=True)
    trained = [i for i, mask in zip(rendered.token_ids, rendered.loss_mask, strict=True) if mask]
    assert RENDERER.decode(trained) == "one<|im_end|>two<|im_end|>"
    assert "<|im_end|><|im_end|>" not in RENDERER.decode(rendered.token_ids)


def test_a_turn_in_the_middle_needs_its_observation():
    with pytest.raises(DataError, match="turn 1 of 2"):
        RENDERER.conversation("Hi", [(ACTION, None), (FINAL, None)])


@pytest.mark.parametrize("turn", [-1, 1, 2])
def test_images_belong_to_a_turn_with_an_observation(turn):
    with pytest.raises(DataError, match=f"images are given for turn {turn} "):
        RENDERER.conversation("Hi", [(ACTION, OBSERVED), (FINAL, None)], later_image_token_counts={turn: [4]})


@given(NASTY)
def test_text_never_becomes_a_control_token_and_keeps_its_bytes(text):
    ids = RENDERER.encode(text)
    assert b"".join(RENDERER.token_bytes[i] for i in ids) == text.encode()
    controls = {TOKENIZER.token_to_id(token) for token in tiny_tokenizer.CONTROLS}
    assert not controls & set(ids)


@given(NASTY)
def test_an_observation_opens_exactly_one_user_and_one_assistant_message(text):
    observation = protocol.render_observation([search_api.SearchResult("t", text)])
    ids = RENDERER.observation_ids(observation)
    assert ids.count(RENDERER.im_start) == 2 and ids.count(RENDERER.im_end) == 2
    assert RENDERER.image_pad not in ids
    assert RENDERER.decode(ids).count("</information>") == 1


@given(st.text())
def test_ordinary_text_is_encoded_as_the_tokenizer_would(text):
    if "<|" not in text:
        assert RENDERER.encode(text) == TOKENIZER.encode(text).ids


def test_tags_may_be_tokens_of_their_own():
    tokenizer = tiny_tokenizer.build()
    tokenizer.add_tokens(["<reason>", "</answer>"])
    renderer = ChatRenderer(tokenizer)
    assert tokenizer.token_to_id("<reason>") in renderer.action_ids(FINAL)
    assert b"</answer>" in renderer.token_bytes


def test_a_tokenizer_without_chat_markup_or_bytes_is_refused():
    plain = tokenizers.Tokenizer(tokenizers.models.BPE())
    with pytest.raises(DataError, match="no <|im_start|>".replace("|", r"\|")):
        ChatRenderer(plain)
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"中": 0}, unk_token="中"))
    words.add_special_tokens(tiny_tokenizer.CONTROLS)
    with pytest.raises(DataError, match="byte-level"):
        ChatRenderer(words)


def test_thousands_of_control_spellings_are_still_text():
    text = "<|im_end|>x" * 3000
    ids = RENDERER.encode(text)
    assert RENDERER.im_end not in ids and b"".join(RENDERER.token_bytes[i] for i in ids).decode() == text


def test_a_dialogue_keeps_the_order_of_texts_and_images_as_the_template_does():
    messages = [["\nFirst ", 1, " and second ", 1, "?"], ["Blue."], [1, "And <|im_end|> this?"], ["Red"], ["Sure?"]]
    parts = [
        [{"type": "text", "text": part} if isinstance(part, str) else {"type": "image"} for part in message]
        for message in messages
    ]
    roles = itertools.cycle(["user", "assistant"])
    said = [{"role": "system", "content": "Be short."}]
    said += [{"role": role, "content": content} for role, content in zip(roles, parts, strict=False)]
    expected = jinja2.Template(TEMPLATE).render(messages=said, add_generation_prompt=True)
    assert RENDERER.decode(RENDERER.dialogue_ids(messages, "Be short.")) == expected


def test_a_dialogue_with_images_first_is_the_conversation_that_was_trained():
    messages = [[2, 3, "Which?"], ["Red"], [4, "And now?"]]
    trained = RENDERER.conversation(
        "Which?", [("Red", "And now?")], [2, 3], later_image_token_counts={0: [4]}, plain=True
    )
    assert RENDERER.dialogue_ids(messages) == trained.token_ids
