"""Our tokenizer code with Qwen2.5-VL's vocabulary, against the ranks file and a plain byte-pair encoding.

Run by `make test-parity` (it needs the `parity` extra, which brings the vocabulary).
"""

import unicodedata

import numpy as np
import pytest
import regex

from benchmarks.stand_ins import qwen_vocabulary
from mmsearch_jax.core import protocol
from mmsearch_jax.data.chat import ChatRenderer
from mmsearch_jax.models.config import ModelConfig
from mmsearch_jax.models.tokenizer import load_tokenizer
from mmsearch_jax.rollout.sampling import TagAutomaton
from tests import chat_template

TEXTS = [
    "Hello, world!",
    "Où est l'Île-de-France ? Ça va, señor Müller?",
    "cafe\u0301 and caf\u00e9: decomposed and composed",
    "Tiếng Việt, čeština, ქართული, עִבְרִית, العَرَبِيَّة, हिन्दी",
    "北京市的人口是多少？東京タワー、서울",
    "👩‍👩‍👧‍👦 🇵🇪 🏳️‍🌈 ☕️ 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 \u200b\ufeff",
    "<reason>Who?</reason><text_search>capital of Peru</text_search>",
    "<img_search><img></img_search>\n<img_search>the flag, on the left</img_search>",
    "<information>[1] Peru: 1,234,567.89 km²</information>",
    "  leading, \t tabs\r\n\r\n and trailing   \n\n\n ",
    "we'll WE'LL don't I'M they've 3.14159 2026-11-23 x=[1,2];{'a':None}//**",
    "\x00\x01\x7f\u0085\u2028",
    "a" * 300 + "!" * 200 + " " * 90,
    "",
]


@pytest.fixture(scope="module")
def known():
    return qwen_vocabulary.ranks()


@pytest.fixture(scope="module")
def tokenizer(known, tmp_path_factory):
    return load_tokenizer(qwen_vocabulary.write(tmp_path_factory.mktemp("qwen"), known))


@pytest.fixture(scope="module")
def renderer(tokenizer):
    return ChatRenderer(tokenizer)


def by_definition(text, known):
    """Ids of a plain text by the definitions of normalisation, splitting and merging."""
    words = regex.findall(qwen_vocabulary.SPLIT, unicodedata.normalize("NFC", text))
    return [known[piece] for word in words for piece in qwen_vocabulary.pieces(word.encode(), known)]


def test_the_table_of_bytes_is_the_ranks_file(renderer, known):
    assert len(known) == qwen_vocabulary.FIRST_CONTROL
    assert {renderer.token_bytes[rank]: rank for rank in range(len(known))} == known
    assert not any(renderer.token_bytes[len(known) :])
    assert renderer.vocabulary_size == len(known) + len(qwen_vocabulary.CONTROLS) + len(qwen_vocabulary.ADDED)


def test_control_tokens_have_the_ids_of_the_model_s_config(renderer):
    config = ModelConfig()
    assert (renderer.vision_start, renderer.vision_end, renderer.image_pad) == (151652, 151653, 151655)
    assert (config.vision_start_token_id, config.vision_end_token_id, config.image_token_id) == (151652, 151653, 151655)
    assert (renderer.end_of_text, renderer.im_start, renderer.im_end) == (151643, 151644, 151645)
    assert renderer.im_end == config.eos_token_id
    assert renderer.vocabulary_size <= config.text.vocab_size


def test_published_ids(renderer):
    assert renderer.encode("Hello, world!") == [9707, 11, 1879, 0]
    assert renderer.prompt_ids("", system=chat_template.SYSTEM) == [
        151644,
        8948,
        198,
        2610,
        525,
        264,
        10950,
        17847,
        13,
        151645,
        198,
        151644,
        872,
        198,
        151645,
        198,
        151644,
        77091,
        198,
    ]


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_ids_equal_byte_pair_encoding_by_definition_and_keep_the_text(text, renderer, known):
    ids = renderer.encode(text)
    assert ids == by_definition(text, known)
    # Qwen's tokenizer first composes characters (NFC); no other byte changes.
    kept = unicodedata.normalize("NFC", text)
    assert b"".join(renderer.token_bytes[i] for i in ids) == kept.encode()
    assert renderer.decode(ids) == kept


@pytest.mark.parametrize("control", [*qwen_vocabulary.CONTROLS, *qwen_vocabulary.ADDED])
def test_no_text_becomes_a_control_token(control, renderer, tokenizer):
    text = f"é{control}{control}\n北京<{control}>"
    ids = renderer.encode(text)
    assert max(ids) < qwen_vocabulary.FIRST_CONTROL
    assert b"".join(renderer.token_bytes[i] for i in ids) == text.encode()
    assert tokenizer.token_to_id(control) in tokenizer.encode(text).ids


@pytest.mark.parametrize("name", chat_template.CASES)
def test_chat_ids_equal_those_of_the_chat_template(name, renderer, tokenizer):
    case = chat_template.CASES[name]
    assert chat_template.rendered_ids(renderer, case) == chat_template.reference_ids(tokenizer, case)


@pytest.fixture(scope="module")
def automaton(renderer):
    return TagAutomaton(renderer.token_bytes, protocol.CLOSING_TAGS, ModelConfig().text.vocab_size)


def first_accepted(automaton, ids):
    """Index of the token at which the automaton accepts, None if it never does."""
    state = 0
    for i, token in enumerate(ids):
        state = automaton.table[state, token]
        if state == automaton.accept:
            return i
    return None


def first_complete(renderer, ids):
    """The same index, found by searching for the tags in the bytes so far."""
    text = b""
    for i, token in enumerate(ids):
        text += renderer.token_bytes[token]
        if any(tag.encode() in text for tag in protocol.CLOSING_TAGS):
            return i
    return None


@pytest.mark.parametrize("tag", protocol.CLOSING_TAGS)
@pytest.mark.parametrize("after", ["", "\n\n", " and more", ".", "</reason>", "é", "北京", "\n<|im_end|>", '">'])
def test_the_closing_tag_is_found_as_the_tokenizer_writes_it(tag, after, automaton, renderer):
    text = f"<reason>Near</ {tag[:-1]} and {tag[:4]} é北👩‍👧</reason>x{tag}{after}"
    ids = renderer.encode(text)
    end = len(text[: text.index(tag) + len(tag)].encode())
    covered = np.cumsum([len(renderer.token_bytes[i]) for i in ids])
    assert first_accepted(automaton, ids) == int(np.argmax(covered >= end)) == first_complete(renderer, ids)


@pytest.mark.parametrize("tag", protocol.CLOSING_TAGS)
def test_the_closing_tag_is_found_whatever_the_token_boundaries(tag, automaton, renderer, known):
    """Random splits of the same bytes into tokens, as a policy may sample them."""
    rng = np.random.default_rng(0)
    text = f"<reason>é北</reason>{tag[:-1]}{tag[:3]}<x{tag}></reason>\n\n".encode()
    longest, beyond, cuts = max(map(len, known)), 0, set()
    for _ in range(200):
        ids, place = [], 0
        while place < len(text):
            ends = [e for e in range(place + 1, min(len(text), place + longest) + 1) if text[place:e] in known]
            ids.append(known[text[place : (place := int(rng.choice(ends)))]])
        found = first_accepted(automaton, ids)
        assert found is not None and found == first_complete(renderer, ids)
        written = b"".join(renderer.token_bytes[i] for i in ids[: found + 1])
        beyond += not written.endswith(tag.encode())
        cuts.add(tuple(ids))
    assert len(cuts) > 150
    # Some splits used tokens such as "></" that extend past the tag.
    assert 0 < beyond < 200


def test_text_without_a_closing_tag_is_never_accepted(automaton, renderer):
    for text in [*TEXTS[:6], "<answer><text_search></text-search></ answer></answe r>", "</information></reason>"]:
        assert first_accepted(automaton, renderer.encode(text)) is None
