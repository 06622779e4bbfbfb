"""Another tools server as grounder, over HTTP on a loopback port, with valid and invalid replies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestServer
from PIL import Image

from mmsearch_jax.core.search_api import ROUTE_GROUND, ImageSearchRequest
from tests.tools_server.grounders.endpoints import Endpoint, endpoint
from tests.tools_server.server_config import default_config, settings_of
from tests.tools_server.small_corpus import encode, scene, write_corpus
from tools_server.assembly import assemble
from tools_server.backends.upstream import Sessions
from tools_server.failures import SearchFailure
from tools_server.grounders.choose_grounder import make_grounder
from tools_server.grounders.grounder import Grounding
from tools_server.http_app import create_app
from tools_server.settings.detection import GrounderSettings
from tools_server.work_pool import WorkPool

IMAGE = Image.new("RGB", (200, 100), (40, 90, 200))


async def ground(url: str, image: Image.Image = IMAGE, expression: str = "the flag", **own: Any) -> Grounding:
    sessions = Sessions()
    grounder = make_grounder(GrounderSettings(kind="http", url=url, **own), sessions, WorkPool(1, 8))
    try:
        return await grounder.ground(image, expression)
    finally:
        await grounder.close()
        await sessions.close()


def reply(**fields: Any) -> dict[str, Any]:
    return {"results": [], "tool": "ground", "grounded": True, **fields}


def answered(answer: Callable[[int], Any], **own: Any) -> tuple[Grounding, Endpoint]:
    async def go() -> tuple[Grounding, Endpoint]:
        async with endpoint(ROUTE_GROUND, answer) as remote:
            return await ground(remote.url, **own), remote

    return asyncio.run(go())


def test_a_real_tools_server_grounds_for_another(tmp_path: Path):
    config = default_config()
    config.corpus = str(write_corpus(tmp_path / "corpus"))
    assembly = assemble(settings_of(config))
    image, boxes = scene("Flag of Velmora", "Flag of New Velmora")

    async def go() -> tuple[Grounding, Grounding]:
        async with TestServer(create_app(assembly.load, assembly.limits)) as server:
            url = str(server.make_url(""))
            return await ground(url, image, "the flag on the right"), await ground(url, image, "quite unknown words")

    found, missed = asyncio.run(go())
    assert found.box is not None
    assert max(abs(a - b) for a, b in zip(found.box, boxes[1], strict=True)) <= 3
    assert (missed.box, missed.search_whole) == (None, True)


def test_a_caller_in_a_hurry_is_told_in_time_that_there_is_no_box(tmp_path: Path):
    config = default_config()
    config.corpus = str(write_corpus(tmp_path / "corpus"))

    async def go() -> None:
        async with endpoint(ROUTE_GROUND, lambda n: "hang") as remote:
            config.grounder.update({"kind": "http", "url": remote.url})
            service = assemble(settings_of(config)).load()
            asked = ImageSearchRequest(encode(IMAGE), "the flag", deadline_s=0.2)
            async with asyncio.timeout(10):
                with pytest.raises(SearchFailure, match="no box within 0.2 s") as failure:
                    await service.ground(asked)
            assert failure.value.code == "upstream_timeout"
            await service.close()

    asyncio.run(go())


def test_its_choice_and_its_order_are_kept_and_not_padded_again():
    found, remote = answered(
        lambda n: reply(box=[10, 10, 60, 60], other_boxes=[[100, 0, 150, 50], [12, 12, 60, 60]]), padding=0.5
    )
    assert found.box == (10, 10, 60, 60)
    assert found.others == ((100, 0, 150, 50), (12, 12, 60, 60))
    assert remote.bodies[0]["expression"] == "the flag"


@pytest.mark.parametrize(
    ("box", "wanted"),
    [
        ([-50, -50, 500, 500], (0, 0, 200, 100)),
        ([60, 50, 20, 10], (20, 10, 60, 50)),
        ([300, 300, 400, 400], None),
        ([10, 10, 12, 12], None),
    ],
)
def test_boxes_that_lie_are_brought_inside_or_dropped(box: list[int], wanted: Any):
    assert answered(lambda n: reply(box=box))[0].box == wanted


def test_thousands_of_boxes_are_cut_to_what_a_reply_names():
    many = [[i % 150, 0, i % 150 + 40, 90] for i in range(20_000)]
    found, _ = answered(lambda n: reply(box=[0, 0, 50, 50], other_boxes=many))
    assert found.box == (0, 0, 50, 50)
    assert len(found.others) == 4


def test_no_detection_there_is_none_here_by_our_own_fallback():
    found, _ = answered(lambda n: reply(grounded=False, box=None, note="its own"), fallback="no_search")
    assert (found.box, found.search_whole) == (None, False)
    assert found.note == "No such region was found; nothing was searched."


@pytest.mark.parametrize(
    ("answer", "code", "calls"),
    [
        ((500, {}), "upstream_error", 4),
        ((429, {}), "rate_limited", 4),
        ((401, {}), "not_authorised", 1),
        ((400, {"code": "bad_request", "message": "no"}), "upstream_error", 1),
        (["a list"], "upstream_error", 4),
        (reply(box=[float("nan"), 0, 1, 1]), "upstream_error", 4),
        (reply(box="everywhere"), "upstream_error", 4),
    ],
)
def test_failures_are_typed_and_only_passing_ones_are_tried_again(answer: Any, code: str, calls: int):
    async def go() -> None:
        async with endpoint(ROUTE_GROUND, lambda n: answer) as remote:
            with pytest.raises(SearchFailure) as failure:
                await ground(remote.url)
            assert failure.value.code == code
            assert len(remote.bodies) == calls

    asyncio.run(go())


def test_a_failure_that_passes_is_got_over():
    assert answered(lambda n: (503, {}) if n == 0 else reply(box=[0, 0, 50, 50]))[0].box == (0, 0, 50, 50)


def test_a_server_that_hangs_is_given_up_at_the_deadline():
    async def go() -> None:
        async with endpoint(ROUTE_GROUND, lambda n: "hang") as remote:
            with pytest.raises(SearchFailure) as failure:
                await ground(remote.url, deadline_s=0.2)
            assert failure.value.code == "upstream_timeout"

    asyncio.run(go())


def test_no_server_is_a_typed_failure_without_its_address():
    with pytest.raises(SearchFailure) as failure:
        asyncio.run(ground("http://127.0.0.1:9"))
    assert failure.value.code == "upstream_error"
    assert "127.0.0.1" not in failure.value.message


def test_the_token_goes_in_the_header_and_into_no_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GROUNDER_TOKEN", "s3cret-token")

    async def go() -> None:
        async with endpoint(ROUTE_GROUND, lambda n: (400, {"echo": "s3cret-token"})) as remote:
            with pytest.raises(SearchFailure) as failure:
                await ground(remote.url, key_env="GROUNDER_TOKEN")
            assert remote.headers[0]["Authorization"] == "Bearer s3cret-token"
            assert "s3cret" not in failure.value.message

    asyncio.run(go())
