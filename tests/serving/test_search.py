"""Search episodes through the chat interface, with a scripted policy and scripted tools."""

import base64
import dataclasses

import openai
import pytest

from benchmarks.stand_ins import scripted
from benchmarks.stand_ins.scripted import CONFIG, FakeTools, Play
from mmsearch_jax.core.protocol import GIVE_UP, Answer, TextSearch, render_turn
from mmsearch_jax.settings.serving import ServeConfig
from tests.serving.live_server import MODEL, serving

SEARCH = Play(2, [render_turn("Hm.", TextSearch("capital of Peru")), render_turn("So.", Answer("Lima"))])
BROKEN = Play(4, [render_turn("Hm.", TextSearch("broken"))])


@pytest.fixture(scope="module")
def live():
    with serving(scripted.engine(SEARCH, BROKEN), tools=FakeTools(0.01), rules=CONFIG) as live:
        yield live


@pytest.fixture(scope="module")
def client(live):
    return live.client()


def ask(client, play=SEARCH, **settings):
    url = "data:image/png;base64," + base64.b64encode(scripted.picture()).decode()
    content = [{"type": "text", "text": play.question}, {"type": "image_url", "image_url": {"url": url}}]
    body = {"model": MODEL + "-search", "messages": [{"role": "user", "content": content}], "temperature": 0}
    return client.chat.completions.create(**{**body, **settings})


def test_a_search_model_answers_with_the_episode_beside_it(live, client):
    reply = ask(client)
    choice = reply.choices[0]
    assert (choice.message.content, choice.finish_reason) == ("Lima", "stop")
    assert SEARCH.texts[0] in choice.message.reasoning_content and "<information>" in choice.message.reasoning_content
    (call,) = choice.episode["calls"]
    assert (call["tool"], call["query"], call["results"][0]["title"]) == ("text_search", "capital of Peru", "Peru")
    rendered = scripted.rendered(SEARCH)
    assert reply.usage.completion_tokens == sum(rendered.loss_mask)
    assert reply.usage.total_tokens == len(rendered.token_ids)
    assert [model.id for model in client.models.list()] == [MODEL, MODEL + "-search"]


def test_the_request_can_ask_for_it_instead_of_the_model(client):
    assert ask(client, model=MODEL, extra_body={"search": True}).choices[0].message.content == "Lima"


def test_an_episode_is_streamed_turn_by_turn(client):
    chunks = [chunk.choices[0] for chunk in ask(client, stream=True)]
    said = [chunk.delta.reasoning_content for chunk in chunks if getattr(chunk.delta, "reasoning_content", None)]
    assert said[0].strip() == SEARCH.texts[0] and said[1].startswith("<information>") and len(said) == 3
    assert "".join(chunk.delta.content or "" for chunk in chunks) == "Lima"
    assert chunks[-1].finish_reason == "stop" and chunks[-1].episode["status"] == "answered"


def test_a_broken_search_is_an_error_and_no_answer(client):
    with pytest.raises(openai.InternalServerError) as caught:
        ask(client, BROKEN)
    assert (caught.value.status_code, caught.value.code) == (502, "tool_failed")
    with pytest.raises(openai.APIError, match="tool_failed"):
        list(ask(client, BROKEN, stream=True))
    assert ask(client).choices[0].message.content == "Lima"


def image_part():
    return {
        "type": "image_url",
        "image_url": {"url": "data:image/png;base64," + base64.b64encode(scripted.picture()).decode()},
    }


@pytest.mark.parametrize("image_in", [0, -1])
def test_the_last_question_and_image_are_asked_whatever_came_before(client, image_in):
    messages = [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
        {"role": "assistant", "content": "Hello. What is your question?"},
        {"role": "user", "content": [{"type": "text", "text": SEARCH.question}]},
    ]
    messages[1 if image_in == 0 else 3]["content"].append(image_part())
    assert ask(client, messages=messages).choices[0].message.content == "Lima"


@pytest.mark.parametrize(("limits", "expected"), [(ServeConfig(), GIVE_UP), (ServeConfig(unanswered="none"), "none")])
def test_an_episode_without_an_answer_has_the_text_of_the_settings(limits, expected):
    silent = Play(3, ["no tags at all"])
    rules = dataclasses.replace(CONFIG, max_turn_tokens=8)
    with serving(scripted.engine(silent), tools=FakeTools(0.01), rules=rules, limits=limits) as live:
        choice = ask(live.client(), silent).choices[0]
        assert choice.episode["status"] != "answered" and choice.message.content == expected


def test_what_an_episode_cannot_take_is_said(client):
    two_images = [{"role": "user", "content": [{"type": "text", "text": "a"}, image_part(), image_part()]}]
    for settings in ({"messages": two_images}, {"stop": "x"}, {"logprobs": True}):
        with pytest.raises(openai.BadRequestError, match="a search episode (takes one image|supports)"):
            ask(client, **settings)


def test_a_broken_engine_is_told_to_everybody(monkeypatch):
    engine = scripted.engine(SEARCH)
    with serving(engine, tools=FakeTools(), rules=CONFIG) as live:

        def broken(sequences):
            raise RuntimeError("out of memory")

        monkeypatch.setattr(engine, "decode", broken)
        client = live.client()
        with pytest.raises(openai.InternalServerError) as caught:
            ask(client)
        assert caught.value.code == "engine_stopped"
        with pytest.raises(openai.InternalServerError) as caught:
            ask(client)
        assert caught.value.status_code == 503
