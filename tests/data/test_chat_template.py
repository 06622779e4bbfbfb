"""Our renderer gives the ids of Qwen2.5-VL's own chat template, rendered by Jinja and encoded by the tokenizer."""

import pytest

from benchmarks.stand_ins import tiny_tokenizer
from mmsearch_jax.data.chat import TEMPLATE, ChatRenderer
from tests import chat_template

TOKENIZER = tiny_tokenizer.build()


@pytest.mark.parametrize("name", chat_template.CASES)
def test_ids_equal_those_of_the_chat_template(name):
    case = chat_template.CASES[name]
    assert chat_template.rendered_ids(ChatRenderer(TOKENIZER), case) == chat_template.reference_ids(TOKENIZER, case)


@pytest.mark.parametrize("name", chat_template.CASES)
def test_ids_without_a_system_message_equal_those_of_our_own_template(name):
    case = chat_template.CASES[name]
    ours = chat_template.rendered_ids(ChatRenderer(TOKENIZER), case, system=None)
    assert ours == chat_template.reference_ids(TOKENIZER, case, TEMPLATE)


def test_the_template_opens_with_qwen_s_system_message_and_ours_only_if_told():
    renderer, case = ChatRenderer(TOKENIZER), chat_template.CASES["text only"]
    opening = renderer.prompt_ids("", system=chat_template.SYSTEM)
    opening = opening[: len(opening) - len(renderer.prompt_ids(""))]
    assert renderer.decode(opening) == f"<|im_start|>system\n{chat_template.SYSTEM}<|im_end|>\n"
    assert [*opening, *renderer.prompt_ids(case.prompt)] == chat_template.reference_ids(TOKENIZER, case)
