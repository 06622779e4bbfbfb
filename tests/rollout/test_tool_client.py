"""The tool client: typed failures, one deadline, retries only if they can help."""

import asyncio
import socket

import pytest
from aiohttp import web

from mmsearch_jax.core import search_api
from mmsearch_jax.core.errors import ToolFailed, ToolRefused, ToolTimeout, ToolUnavailable
from mmsearch_jax.core.protocol import ImageSearch, TextSearch
from mmsearch_jax.rollout.tool_client import ToolClient, call_tool

REPLY = search_api.SearchReply((search_api.SearchResult("Peru", "Capital: Lima"),), "text_search")


class Scripted:
    """A transport with a list of answers; it raises exceptions and sleeps for numbers (seconds)."""

    def __init__(self, *answers):
        self.answers, self.requests, self.in_flight, self.peak = list(answers), [], 0, 0

    async def request(self, method, route, body):
        self.requests.append((method, route, body))
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        try:
            answer = self.answers.pop(0)
            if isinstance(answer, float):
                await asyncio.sleep(answer)
                return 200, REPLY.to_json()
            if isinstance(answer, Exception):
                raise answer
            return answer
        finally:
            self.in_flight -= 1

    async def close(self):
        self.answers = []


def client(*answers, **options):
    transport = Scripted(*answers)
    return ToolClient("http://test", transports=[transport], **options), transport


def test_a_search_sends_the_schema_and_reads_the_reply():
    tools, transport = client((200, REPLY.to_json()), (200, REPLY.to_json()))
    assert asyncio.run(tools.text_search("peru", 3)) == REPLY
    assert asyncio.run(tools.image_search(b"abc", "the flag", 2)) == REPLY
    method, route, asked = transport.requests[0]
    assert (method, route) == ("POST", search_api.ROUTE_TEXT_SEARCH)
    assert search_api.TextSearchRequest.from_json(asked) == search_api.TextSearchRequest("peru", 3, "", 30.0)
    assert (
        transport.requests[1][2] | {"image_base64": "YWJj", "expression": "the flag", "top_k": 2}
        == transport.requests[1][2]
    )


def test_overload_and_lost_connections_are_tried_again():
    busy = (503, search_api.ErrorReply("overloaded", "busy").to_json())
    tools, transport = client(busy, ConnectionError("reset"), (200, REPLY.to_json()))
    assert asyncio.run(tools.text_search("peru")) == REPLY
    assert len(transport.requests) == 3


REFUSED = (400, search_api.ErrorReply("bad_request", "the query is empty").to_json())


def test_a_refused_request_is_tried_again_only_if_the_server_has_other_limits():
    tools, transport = client(REFUSED, (200, {"limits": search_api.RequestLimits().to_json()}))
    with pytest.raises(ToolRefused, match="bad_request: the query is empty"):
        asyncio.run(tools.text_search(""))
    assert [route for _, route, _ in transport.requests] == [search_api.ROUTE_TEXT_SEARCH, search_api.ROUTE_READY]
    told = {"limits": {**search_api.RequestLimits().to_json(), "max_query_chars": 9, "max_top_k": 2}}
    tools, transport = client(REFUSED, (200, told), (200, REPLY.to_json()), (200, REPLY.to_json()))
    assert asyncio.run(tools.text_search("who built the tower", 5)) == REPLY
    assert (transport.requests[-1][2]["query"], transport.requests[-1][2]["top_k"]) == ("who built", 2)
    assert asyncio.run(tools.text_search("who built the tower", 5)) == REPLY
    assert len(transport.requests) == 4


@pytest.mark.parametrize(
    "ready", [(404, "none"), (200, {"limits": {"max_pixels": "many"}}), (200, []), ConnectionError("x")]
)
def test_a_server_that_does_not_tell_its_limits_is_no_reason_to_fail_otherwise(ready):
    tools, _ = client(REFUSED, ready)
    with pytest.raises(ToolRefused, match="the query is empty"):
        asyncio.run(tools.text_search(""))


def test_what_the_server_refuses_is_an_answer_that_the_policy_reads():
    for action in (TextSearch("q"), ImageSearch("the flag")):
        tools, _ = client(REFUSED, (200, {}))
        reply = asyncio.run(call_tool(tools, action, 3, "", b"abc"))
        assert (reply.status, reply.results, reply.note) == (
            "refused",
            (),
            "The search was refused: the query is empty",
        )
    for status, code in ((401, "not_authorised"), (402, "out_of_budget"), (404, "not_recorded"), (404, "bad_request")):
        tools, _ = client((status, search_api.ErrorReply(code, "no").to_json()))
        with pytest.raises(ToolFailed) as caught:
            asyncio.run(call_tool(tools, TextSearch("q"), 3, "", b""))
        assert not isinstance(caught.value, ToolRefused)


def test_failures_are_typed_and_say_what_to_do():
    tools, _ = client(*[ConnectionError("refused")] * 2, max_retries=1)
    with pytest.raises(ToolUnavailable, match="no search server at http://test.*serve-tools"):
        asyncio.run(tools.text_search("q"))
    tools, _ = client(*[(500, "boom")] * 2, max_retries=1)
    with pytest.raises(ToolFailed, match=r"HTTP 500 internal: boom \(2 attempts\)"):
        asyncio.run(tools.text_search("q"))
    tools, _ = client((200, {"results": 3}))
    with pytest.raises(ToolFailed, match="unreadable answer"):
        asyncio.run(tools.text_search("q"))


def test_retries_share_one_deadline():
    tools, _ = client(*[ConnectionError("refused")] * 100, max_retries=99, deadline_s=0.3)
    with pytest.raises(ToolTimeout, match=r"within 0\.3 s"):
        asyncio.run(tools.text_search("q"))


def test_concurrency_is_bounded_and_waiting_is_not_counted_against_the_deadline():
    tools, transport = client(*[0.05] * 8, max_concurrency=2, deadline_s=0.15)

    async def many():
        return await asyncio.gather(*(tools.text_search("q") for _ in range(8)))

    assert asyncio.run(many()) == [REPLY] * 8
    assert transport.peak == 2


def test_it_talks_real_http_over_several_event_loops():
    async def search(request):
        query = search_api.TextSearchRequest.from_json(await request.json()).query
        if query == "html":
            return web.Response(text="<html>", content_type="text/html", status=502)
        return web.json_response(REPLY.to_json())

    async def ready(request):
        return web.json_response({})

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    tools = ToolClient(f"http://127.0.0.1:{port}", max_retries=0)

    async def session():
        app = web.Application()
        app.router.add_post(search_api.ROUTE_TEXT_SEARCH, search)
        app.router.add_get(search_api.ROUTE_READY, ready)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        try:
            await tools.wait_ready(5)
            assert await tools.text_search("peru") == REPLY
            with pytest.raises(ToolFailed, match="HTTP 502"):
                await tools.text_search("html")
        finally:
            await tools.close()
            await runner.cleanup()

    asyncio.run(session())
    asyncio.run(session())

    async def gone():
        with pytest.raises(ToolUnavailable, match="not ready after"):
            await tools.wait_ready(0.2)
        await tools.close()

    asyncio.run(gone())


# Several servers ------------------------------------------------------------------------------------------------


def replicas(*scripts, **options):
    transports = [Scripted(*answers) for answers in scripts]
    urls = ",".join(f"http://test{i}" for i in range(len(transports)))
    return ToolClient(urls, transports=transports, **options), transports


def test_the_least_busy_server_is_asked():
    tools, transports = replicas([0.2] * 8, [0.2] * 8)

    async def go():
        await asyncio.gather(*(tools.text_search(f"q{i}") for i in range(8)))

    asyncio.run(go())
    assert [len(transport.requests) for transport in transports] == [4, 4]


def test_a_server_that_does_not_answer_is_left_for_the_other_at_once():
    refused = [ConnectionError("refused")] * 9
    tools, (first, second) = replicas(refused, [(200, REPLY.to_json())] * 9)

    async def go():
        for _ in range(5):
            assert await tools.text_search("q") == REPLY

    asyncio.run(go())
    assert (len(first.requests), len(second.requests)) == (1, 5)


def test_an_overloaded_server_is_left_for_the_other_too():
    busy = (503, search_api.ErrorReply("overloaded", "busy").to_json())
    tools, (first, second) = replicas([busy], [(200, REPLY.to_json())])
    assert asyncio.run(tools.text_search("q")) == REPLY
    assert (len(first.requests), len(second.requests)) == (1, 1)


def test_when_all_servers_are_gone_the_message_names_one():
    tools, _ = replicas([ConnectionError("refused")] * 9, [ConnectionError("refused")] * 9, max_retries=1)
    with pytest.raises(ToolUnavailable, match=r"no search server at http://test[01]: refused"):
        asyncio.run(tools.text_search("q"))
