"""The chat client's features that the judge's tests do not cover: images, refusals, usage."""

import asyncio

import pytest

from mmsearch_jax.core.chat_client import ChatClient, ChatEndpoint, ChatReply, image_part, text_part
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
