"""Pretraining dialogues about text: they teach the tiny base to read and copy before it sees a tool.

A random generator makes each dialogue. It shows a listing of passages or strings and asks many questions about it
(with such dense supervision copying appears within a few hundred steps). The dialogues contain no tags, tool calls or
parts of the evaluation world. Dialogues about pictures are in `sight.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from mmsearch_jax.miniworld import facts, names, prose, scenes

_QUESTION_FORMS = (
    "What is the {phrase} of {name}?",
    "What is the {phrase} of {name}?",
    "{name} {phrase}",
    "Tell me the {phrase} of {name}.",
)


@dataclasses.dataclass(frozen=True)
class Dialogue:
    """Alternating user and assistant texts; the optional picture comes before the first user text."""

    turns: Sequence[tuple[str, str]]
    image: Image.Image | None = None


@dataclasses.dataclass(frozen=True)
class Passage:
    """One entry of a listing: a title and some of its facts."""

    title: str
    name: str
    facts: dict[str, str]
    prose: str = ""

    def render(self) -> str:
        """The entry's text: "Title: Label: value; Label: value; prose"."""
        lines = [f"{facts.ATTRIBUTES[key].label}: {value}" for key, value in self.facts.items()]
        lines += [self.prose] if self.prose else []
        return f"{self.title}: {'; '.join(lines)}" if lines else self.title


def listing(passages: Sequence[Passage]) -> str:
    """Numbered entries, one per line, in the format of search results."""
    return "\n".join(f"[{i}] {passage.render()}" for i, passage in enumerate(passages, 1))


def reading(rng: np.random.Generator) -> Dialogue:
    """A listing of passages, then questions; exactly one fact of the listing answers each."""
    passages = _land_passages(rng, num_lands=int(rng.integers(1, 4)))
    answerable = _answerable(passages)
    order = rng.permutation(len(answerable))[: int(rng.integers(3, 9))]
    turns = []
    for place, index in enumerate(order):
        name, key, value = answerable[index]
        attribute = facts.ATTRIBUTES[key]
        if rng.random() < 0.4:
            question, answer = f"Quote the {attribute.phrase} of {name}.", f"{name}: {attribute.label}: {value}"
        else:
            form = _QUESTION_FORMS[int(rng.integers(len(_QUESTION_FORMS)))]
            question, answer = form.format(phrase=attribute.phrase, name=name), value
        turns.append((f"{listing(passages)}\n{question}" if place == 0 else question, answer))
    return Dialogue(turns)


def joining(rng: np.random.Generator) -> Dialogue:
    """A listing of pictures and one of pages. The question names no land: the picture's title leads to the page."""
    passages = _land_passages(rng, num_lands=2)
    answerable = _answerable(passages)
    name, key, value = answerable[int(rng.integers(len(answerable)))]
    attribute = facts.ATTRIBUTES[key]
    pictures = flag_hits(rng, name)
    context = f"{listing(pictures)}\n{listing(passages)}"
    question = f"What is the {attribute.phrase} of the country with this flag?"
    turns = [(f"{context}\n{question}", value)]
    if rng.random() < 0.5:
        turns.insert(0, (f"{context}\nWhich country is it?", name))
        turns[1] = (question, value)
    if rng.random() < 0.5:
        turns.append(("What was asked for?", attribute.phrase))
    return Dialogue(turns)


def copying(rng: np.random.Generator) -> Dialogue:
    """Strings to repeat, or to look up by key in a list: names, titles, numbers and random characters."""
    if rng.random() < 0.5:
        texts = [_copy_text(rng) for _ in range(int(rng.integers(2, 6)))]
        return Dialogue([(f"Repeat: {text}", text) for text in texts])
    items = [_copy_text(rng) for _ in range(int(rng.integers(2, 6)))]
    keys = [names.word(rng, 1, 2) for _ in items]
    shown = "\n".join(f"{key}: {item}" for key, item in zip(keys, items, strict=True))
    order = rng.permutation(len(items))
    turns = [(f"{keys[i]}?", items[i]) for i in order]
    turns[0] = (f"{shown}\n{turns[0][0]}", turns[0][1])
    return Dialogue(turns)


def _copy_text(rng: np.random.Generator) -> str:
    kind = rng.random()
    if kind < 0.35:
        return " ".join(names.proper_name(rng) for _ in range(int(rng.integers(1, 4))))
    if kind < 0.5:
        return names.title(rng)
    if kind < 0.7:
        attribute = list(facts.ATTRIBUTES.values())[int(rng.integers(len(facts.ATTRIBUTES)))]
        return attribute.invent(rng, names.proper_name(rng))
    if kind < 0.85:
        alphabet = (
            "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789áéíóúàèêãçöüäøåñëôšžčćğışłńăâîțß'-,.() "
        )
        letters = [alphabet[int(i)] for i in rng.integers(0, len(alphabet), int(rng.integers(4, 20)))]
        return "".join(letters).strip() or "x"
    return " ".join(names.phrase(rng) for _ in range(int(rng.integers(1, 3))))


def _land_passages(rng: np.random.Generator, num_lands: int) -> list[Passage]:
    passages = []
    for _ in range(num_lands):
        name = names.proper_name(rng)
        known = facts.invent_land_facts(rng, name)
        keys = list(known)
        shown = keys[: int(rng.integers(1, 4))]
        text = _cut(rng, prose.about(rng, name)) if rng.random() < 0.25 else ""
        passages.append(Passage(name, name, {key: known[key] for key in shown}, text))
        if rng.random() < 0.3:
            rest = keys[len(shown) : len(shown) + int(rng.integers(1, 3))]
            topic = ("Geography of {}", "Economy of {}", "History of {}", "{} today")[int(rng.integers(4))]
            passages.append(Passage(topic.format(name), name, {key: known[key] for key in rest}))
    # If only one land had the attribute, the label would give the answer and the title could be ignored.
    if len(passages) > 1 and rng.random() < 0.6:
        shared = next(iter(passages[0].facts))
        taken = {passage.name for passage in passages if shared in passage.facts}
        for i, passage in enumerate(passages):
            if passage.name not in taken:
                taken.add(passage.name)
                value = facts.ATTRIBUTES[shared].invent(rng, passage.name)
                passages[i] = dataclasses.replace(passage, facts={**passage.facts, shared: value})
    return [passages[i] for i in rng.permutation(len(passages))]


def _answerable(passages: Sequence[Passage]) -> list[tuple[str, str, str]]:
    return [(passage.name, key, value) for passage in passages for key, value in passage.facts.items()]


def chain(rng: np.random.Generator) -> Dialogue:
    """A question that takes several steps: in each, the assistant says what it needs and the user shows a listing."""
    passages = _land_passages(rng, num_lands=int(rng.integers(1, 3)))
    answerable = _answerable(passages)
    name, key, value = answerable[int(rng.integers(len(answerable)))]
    phrase = facts.ATTRIBUTES[key].phrase
    flag = rng.random() < 0.5
    thing, verb = ("flag", "") if flag else ("monument", " stands")
    subject = (f"this {thing}", f"the {thing} {scenes.PHRASES[int(rng.integers(len(scenes.PHRASES)))]}")[
        int(rng.integers(2))
    ]
    joint = "with" if flag else "where"
    turns = [
        (f"What is the {phrase} of the country {joint} {subject}{verb}?", f"I need the {phrase}. Show me {subject}.")
    ]
    if flag:
        turns.append(
            (listing(flag_hits(rng, name)), f"It is the flag of {name}. I need its {phrase}. {name} {phrase}?")
        )
    else:
        seen = _monument_name(rng)
        turns.append((listing(monument_hits(rng, seen)), f"It is {seen}. I need its country. {seen} country?"))
        page = Passage(seen, seen, {"country": name}, _cut(rng, prose.about(rng, seen)) if rng.random() < 0.5 else "")
        turns.append(
            (listing([page, *_distractors(rng)]), f"{seen}: Country: {name}. I need its {phrase}. {name} {phrase}?")
        )
    turns.append((listing(passages), f"{name}: {facts.ATTRIBUTES[key].label}: {value}. The answer is {value}."))
    return Dialogue(turns)


def flag_hits(rng: np.random.Generator, name: str) -> list[Passage]:
    """Image-search hits for a flag: its own title first, then others. Most have a description that repeats the name."""
    titles = [name, *(names.proper_name(rng) for _ in range(int(rng.integers(0, 2))))]
    described = rng.random() < 0.8
    return [
        Passage(
            f"Flag of {land}",
            land,
            {},
            f"The flag of {land}: {names.phrase(rng)} and {names.phrase(rng)}" if described else "",
        )
        for land in titles
    ]


def monument_hits(rng: np.random.Generator, name: str) -> list[Passage]:
    """Image-search hits for a monument: its own title first, then others."""
    titles = [name, *(_monument_name(rng) for _ in range(int(rng.integers(0, 2))))]
    return [Passage(title, title, {}, _cut(rng, prose.about(rng, title))) for title in titles]


_BUILDINGS = ("{} Tower", "{} Palace", "{} Temple", "Castle of {}", "{} Bridge", "{} Gate", "{} Caves", "{}")


def _monument_name(rng: np.random.Generator) -> str:
    return _BUILDINGS[int(rng.integers(len(_BUILDINGS)))].format(names.proper_name(rng))


def _cut(rng: np.random.Generator, text: str) -> str:
    """The text, cut at a random place in half of the cases, as search results are cut at a length limit."""
    return text[: int(rng.integers(12, 140))] if rng.random() < 0.5 else text


def _distractors(rng: np.random.Generator) -> list[Passage]:
    return [
        Passage(name := _monument_name(rng), name, {"country": names.proper_name(rng)})
        for _ in range(int(rng.integers(0, 2)))
    ]


TextTask = Callable[[np.random.Generator], Dialogue]
TEXT_TASKS: dict[str, TextTask] = {"reading": reading, "joining": joining, "copying": copying, "chain": chain}
