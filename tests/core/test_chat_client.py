"""The chat client's features that the judge's tests do not cover: images, refusals, usage."""

import asyncio
import json

import pytest

from mmsearch_jax.core.chat_client import (
    ChatClient,
    ChatEndpoint,
    ChatReply,
    _completion,
    _Passing,
    image_part,
    text_part,
)
from mmsearch_jax.core.errors import ChatFailed
from tests.data.rows import jpeg
from tests.rewards.test_judge import Endpoint, served


def test_images_refusals_and_usage():
    async def main():
        endpoint = Endpoint("hello")
        async with served(endpoint) as url:
            client = ChatClient(ChatEndpoint(url, "m", temperature=0.5))
            content = [image_part(jpeg()), text_part("Which?")]
            reply = await client.ask([{"role": "user", "content": content}], lambda reply: reply)
            await client.close()
        assert reply == ChatReply("hello", False, 0)
        sent = endpoint.bodies[0]
        assert sent["temperature"] == 0.5
        assert sent["messages"][0]["content"][0]["image_url"]["url"].startswith("data:image/jpeg;base64,/9j/")

    asyncio.run(main())


def test_an_endless_reply_is_cut_off():
    async def main():
        endpoint = Endpoint("x" * (5 << 20))
        async with served(endpoint) as url:
            client = ChatClient(ChatEndpoint(url, "m"), "judge", "verdict")
            with pytest.raises(ChatFailed, match="the judge at .* sent a reply of more than 4,194,304 bytes"):
                await client.ask([{"role": "user", "content": "?"}], lambda reply: reply)
            await client.close()
        assert len(endpoint.bodies) == 1

    asyncio.run(main())


def completion(content, **more):
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": content}, **more}], "usage": None})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (completion("red \ud83d"), "red �"),
        (completion([{"type": "thinking", "thinking": [{"type": "text"}]}, {"type": "text", "text": "red"}]), "red"),
        (completion(["red", {"type": "output_text", "text": "\ude00"}]), "red�"),
        (completion([]), ""),
        (completion(None), ""),
    ],
)
def test_what_an_endpoint_says_is_text_of_whole_characters(text, said):
    assert _completion(text).text == said
    said.encode()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<think>Is it Lima?</think>\n\nQuito", "Quito"),
        ("It may be Lima.\n</think>\nQuito", "Quito"),
        ("<think>Lima?</think><think>Or not.</think>Quito", "Quito"),
        (" <think>Is it Lima?", ""),
        ("<think>Lima</think>", ""),
        ("<think><answer>B</answer></think><answer>A</answer>", "<answer>A</answer>"),
        ("The tag <think> opens a thought", "The tag <think> opens a thought"),
        ("<thinking>Lima?</thinking> Quito", "Quito"),
        ("<Thought>Lima?", ""),
        ("◁think▷Lima?◁/think▷Quito", "Quito"),
        ("[THINK]Lima?[/THINK]Quito", "Quito"),
        ("The tag </reasoning> ends one", "The tag </reasoning> ends one"),
        ("<reason>I know.</reason><answer>A</answer>", "<reason>I know.</reason><answer>A</answer>"),
    ],
)
def test_what_a_model_thinks_is_not_what_it_says(text, said):
    assert _completion(completion(text)).text == said
    assert _completion(completion([{"type": "text", "text": text}])).text == said


@pytest.mark.parametrize(
    "text",
    [
        completion(5),
        completion({"text": "red"}),
        completion([{"type": "text", "text": 5}]),
        "[" * 100_000,
        '{"choices": ["red"]}',
        completion("red").replace('"usage": null', '"usage": {"total_tokens": 1e999}'),
        completion("red").replace('"usage": null', '"usage": [1]'),
        "null",
    ],
)
def test_odd_replies_are_failed_attempts_never_other_errors(text):
    with pytest.raises(_Passing, match="no chat completion"):
        _completion(text)
