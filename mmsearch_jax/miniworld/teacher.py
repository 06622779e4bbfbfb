"""The scripted teacher: a fixed strategy that answers a question with the live tools.

It writes SFT conversations for the training world as the paper's teacher model does for DeepMMSearchVQA (sec. 2): turn by
turn, from the tools' replies. It reads results and observations, never the world's files. The caller drops
conversations whose answer is wrong (because a search misled the teacher).
"""

from __future__ import annotations

from collections.abc import Sequence

from mmsearch_jax.core.protocol import Answer, ImageSearch, TextSearch, render_turn
from mmsearch_jax.core.trajectory import Turn
from mmsearch_jax.data.rows import Row
from mmsearch_jax.miniworld import facts


def next_turn(row: Row, turns: Sequence[Turn]) -> str | None:
    """The turn that follows the given ones; None if their results allow no next step.

    Args:
      row: its `meta` holds the question's form, attribute and referring expression.
      turns: the episode's turns so far, each with its search results and observation.
    """
    form = row.meta["form"]
    if form not in ("land", "monument"):
        return render_turn("I can see it.", Answer(row.answers[0]))
    attribute = facts.ATTRIBUTES[row.meta["attribute"]]
    if not turns:
        # The first turn repeats the asked attribute, so that it is near in the context when it is needed later.
        return render_turn(
            f"I need the {attribute.phrase}. What is it?", ImageSearch(row.meta.get("expression") or None)
        )
    image_search, *text_searches = turns
    assert image_search.tool is not None
    if not image_search.tool.results:
        return None
    title = image_search.tool.results[0].title
    if form == "land":
        land = title.removeprefix("Flag of ")
        found = f"It is the flag of {land}."
    else:
        label = facts.ATTRIBUTES["country"].label
        if not text_searches:
            return render_turn(f"It is {title}. I need its country.", TextSearch(f"{title} country"))
        land = _read(text_searches.pop(0), title, label)
        if land is None:
            return None
        found = f"{title}: {label}: {land}."
    if not text_searches:
        return render_turn(f"{found} I need its {attribute.phrase}.", TextSearch(f"{land} {attribute.phrase}"))
    answer = _read(text_searches[0], land, attribute.label)
    return None if answer is None else render_turn(f"{land}: {attribute.label}: {answer}", Answer(answer))


def _read(turn: Turn, name: str, label: str) -> str | None:
    """The value on the line "`label`: value" of a page about `name`; a page with exactly that title comes first.

    None unless the observation holds the whole line (observations may be cut).
    """
    assert turn.tool is not None and turn.observation is not None
    for page in sorted(turn.tool.results, key=lambda page: page.title != name):
        if name not in page.title:
            continue
        for line in page.snippet.split("; "):
            if line.startswith(f"{label}: ") and line in turn.observation:
                return line.removeprefix(f"{label}: ")
    return None
