"""The scripted teacher: how a careful person would work through a question with the live tools.

It writes SFT conversations for the training world as the paper's teacher model does for DeepMMSearchVQA (sec. 2): turn by
turn, from what the tools really returned. It reads observations, never the world's files; conversations whose answer
is wrong (a search that led astray) are dropped by the caller.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from mmsearch_jax.data.schema import ConversationTurn, Row
from mmsearch_jax.miniworld import facts
from mmsearch_jax.protocol import (
    Answer,
    ImageSearch,
    SearchResult,
    TextSearch,
    render_observation,
    render_turn,
)

Search = Callable[[TextSearch | ImageSearch], Awaitable[Sequence[SearchResult]]]


async def converse(row: Row, search: Search, observe: Callable[[Sequence[SearchResult]], str] = render_observation):
    """Works through one row.

    Args:
      row: its `meta` says the question's form, attribute and referring expression.
      search: runs a tool call against the live server.
      observe: turns results into the observation that the policy will read.

    Returns:
      (turns, answer): the conversation, and its answer; None for both where the results lead nowhere.
    """
    form = row.meta["form"]
    if form not in ("land", "monument"):
        turn = render_turn("I can see it.", Answer(row.answers[0]))
        return (ConversationTurn(turn),), row.answers[0]
    turns: list[ConversationTurn] = []

    async def act(reason: str, action: TextSearch | ImageSearch) -> Sequence[SearchResult]:
        results = await search(action)
        turns.append(ConversationTurn(render_turn(reason, action), observe(results)))
        return results

    pictures = await act("I must identify it.", ImageSearch(row.meta.get("expression") or None))
    if not pictures:
        return None, None
    title = pictures[0].title
    attribute = facts.ATTRIBUTES[row.meta["attribute"]]
    if form == "land":
        land = title.removeprefix("Flag of ")
        found = f"It is the flag of {land}."
    else:
        found, line = f"It is {title}.", facts.ATTRIBUTES["country"].label
        pages = await act(f"{found} I need its country.", TextSearch(f"{title} country"))
        land = _read(pages, title, line)
        if land is None:
            return None, None
        found = f"{title}: {line}: {land}."
    pages = await act(f"{found} I need its {attribute.phrase}.", TextSearch(f"{land} {attribute.phrase}"))
    answer = _read(pages, land, attribute.label)
    if answer is None:
        return None, None
    turns.append(ConversationTurn(render_turn(f"{land}: {attribute.label}: {answer}", Answer(answer))))
    return tuple(turns), answer


def _read(pages: Sequence[SearchResult], name: str, label: str) -> str | None:
    """The value on the line "`label`: value" of a page about `name`, the page of that very title first."""
    for page in sorted(pages, key=lambda page: page.title != name):
        if name not in page.title:
            continue
        for line in page.snippet.split("; "):
            if line.startswith(f"{label}: "):
                return line.removeprefix(f"{label}: ")
    return None
