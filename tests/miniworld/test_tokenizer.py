"""The tiny base's tokenizer: a name has the same tokens in every context."""

import pytest

from mmsearch_jax.data.chat import ChatRenderer
from mmsearch_jax.miniworld.tokenizer import CONTROL_TOKENS, save_tokenizer, train_tokenizer

TEXTS = ["What is the capital of Vekara?", "Vekara: Capital: Ostúl", "<reason>It is the flag of Vekara.</reason>"] * 20


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, 320)


@pytest.mark.parametrize("name", ["Vekara", "Côte d'Ivoire", "Guinea-Bissau", "Nuku'alofa", "68,512,806"])
def test_a_name_has_the_same_tokens_in_a_page_a_title_a_query_and_an_answer(tokenizer, name):
    alone = tokenizer.encode(name).tokens
    for template in ("Capital: {}", "[1] {}: x", "Flag of {}", "<answer>{}</answer>", "<text_search>{} area", "of {}?"):
        tokens = tokenizer.encode(template.format(name)).tokens
        joined = "\x00".join(tokens)
        assert "\x00".join(alone) in joined, (template, tokens)


def test_any_text_comes_back_unchanged(tokenizer):
    text = "São Tomé — “naïve” 日本 \t 𝛼\nx"
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


def test_transformers_loads_what_is_saved(tokenizer, tmp_path):
    from transformers import AutoTokenizer

    save_tokenizer(tokenizer, tmp_path)
    loaded = AutoTokenizer.from_pretrained(str(tmp_path))
    text = "What is the capital of Ostúl?"
    assert loaded(text)["input_ids"] == tokenizer.encode(text).ids
    assert [loaded.convert_tokens_to_ids(token) for token in CONTROL_TOKENS] == list(range(len(CONTROL_TOKENS)))


def test_the_chat_renderer_accepts_it(tokenizer):
    renderer = ChatRenderer(tokenizer)
    assert renderer.decode(renderer.encode("Vekara <|im_end|>")) == "Vekara <|im_end|>"
