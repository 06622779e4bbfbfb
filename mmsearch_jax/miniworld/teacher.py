"""The scripted teacher: how a careful person would work through a question with the live tools.

It writes SFT conversations for the training world as the paper's teacher model does for DeepMMSearchVQA (sec. 2): turn by
turn, from what the tools really returned. It reads observations, never the world's files; conversations whose answer
is wrong (a search that led astray) are dropped by the caller.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from mmsearch_jax.core.protocol import Answer, ImageSearch, TextSearch, render_turn
from mmsearch_jax.core.search_api import SearchReply
from mmsearch_jax.data.rows import ConversationTurn, Row
from mmsearch_jax.miniworld import facts

Call = Callable[[TextSearch | ImageSearch], Awaitable[tuple[SearchReply, str]]]


async def converse(row: Row, call: Call) -> tuple[tuple[ConversationTurn, ...] | None, str | None]:
    """Works through one row.

    Args:
      row: its `meta` says the question's form, attribute and referring expression.
      call: asks the live server; gives its reply and the observation that the policy will read.

    Returns:
      The conversation and its answer; None for both where the results lead nowhere.
    """
    form = row.meta["form"]
    if form not in ("land", "monument"):
        return (ConversationTurn(render_turn("I can see it.", Answer(row.answers[0]))),), row.answers[0]
    turns: list[ConversationTurn] = []

    async def act(reason: str, action: TextSearch | ImageSearch) -> tuple[SearchReply, str]:
        reply, observation = await call(action)
        turns.append(ConversationTurn(render_turn(reason, action), observation))
        return reply, observation

    attribute = facts.ATTRIBUTES[row.meta["attribute"]]
    # The plan comes first: what was asked stands close by when it is needed, two observations later.
    reply, _ = await act(f"I need the {attribute.phrase}. What is it?", ImageSearch(row.meta.get("expression") or None))
    if not reply.results:
        return None, None
    title = reply.results[0].title
    if form == "land":
        land = title.removeprefix("Flag of ")
        found = f"It is the flag of {land}."
    else:
        label = facts.ATTRIBUTES["country"].label
        pages, seen = await act(f"It is {title}. I need its country.", TextSearch(f"{title} country"))
        land = _read(pages, seen, title, label)
        if land is None:
            return None, None
        found = f"{title}: {label}: {land}."
    pages, seen = await act(f"{found} I need its {attribute.phrase}.", TextSearch(f"{land} {attribute.phrase}"))
    answer = _read(pages, seen, land, attribute.label)
    if answer is None:
        return None, None
    turns.append(ConversationTurn(render_turn(f"{land}: {attribute.label}: {answer}", Answer(answer))))
    return tuple(turns), answer


def _read(reply: SearchReply, observation: str, name: str, label: str) -> str | None:
    """The value on the line "`label`: value" of a page about `name`, the page of that very title first; None unless it
    stands whole in the observation, which may have been cut."""
    for page in sorted(reply.results, key=lambda page: page.title != name):
        if name not in page.title:
            continue
        for line in page.snippet.split("; "):
            if line.startswith(f"{label}: ") and line in observation:
                return line.removeprefix(f"{label}: ")
    return None
