"""LLaMA-Factory's JSON in its ShareGPT layout: `conversations` [{from, value}] (or `messages` [{role, content}]) and `images`.

`sharegpt_row` reads a record, `sharegpt_record` makes one. A conversation in our grammar keeps its turns; a single question
with a plain answer becomes a row without turns. Other conversations are rejected: an episode cannot reproduce them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mmsearch_jax.core.errors import DataError
from mmsearch_jax.core.protocol import INFORMATION, PROMPT_STYLES, Answer, first_turn_prompt, later_prompt, parse_turn
from mmsearch_jax.data.convert import fields, record_images
from mmsearch_jax.data.convert.record_images import Said
from mmsearch_jax.data.formats import json_text, jsonl
from mmsearch_jax.data.rows import ConversationTurn, Row

_USER, _ASSISTANT = ("human", "user", "observation", "tool"), ("gpt", "assistant", "function_call")
_TEXTS = ("conversations", "messages", "id", "answers", "category", "system", "tools")
_CLOSE = f"</{INFORMATION}>"


def records(path: Path) -> Iterator[Any]:
    """The records of a JSON list or of JSON lines.

    Raises:
      DataError: the file is missing, or not a JSON list.
    """
    if not path.is_file():
        raise DataError(f"no file at {path}: give a .json or .jsonl file")
    if path.suffix == ".jsonl":
        yield from (record for record in jsonl.read(path) if record is not None)
        return
    try:
        listed = json_text.loads(path.read_bytes())
    except DataError as error:
        raise DataError(f"{path} is {error}: give a list of records, or JSON lines as .jsonl") from error
    if not isinstance(listed, list):
        raise DataError(f"{path} contains a {type(listed).__name__}, expected a list of records")
    yield from listed


def sharegpt_row(record: Mapping[str, Any], number: int) -> Row:
    """A row of one conversation.

    Raises:
      DataError: the roles do not alternate, the conversation is neither in our grammar nor one question and answer, or image
        marks and images differ in number.
    """
    messages, unread = _messages(record)
    images = record_images.counted(record, messages[0], [*messages[1:], *unread], _TEXTS)
    said = [message.text for message in messages]
    question = fields.without_marks(said[0])
    if not question:
        raise DataError("conversations[0]: there is no question")
    texts, observations = said[1::2], said[2::2]
    action = parse_turn(texts[-1]).action
    extra = record.get("answers")
    searched = len(texts) > 1 if isinstance(action, Answer) else None
    if isinstance(action, Answer):
        turns = tuple(
            ConversationTurn(written, None if seen is None else _observation(written, seen))
            for written, seen in itertools.zip_longest(texts, observations)
        )
        gold, question = fields.answers(extra or action.text), _bare_question(question)
    elif len(texts) == 1 and not isinstance(parse_turn(texts[0]).reason, str):
        turns, gold = (), fields.answers(extra or texts[0])
    else:
        raise DataError("conversations: the last turn does not answer in our grammar")
    return Row(
        str(record.get("id") or f"sharegpt-{number}"),
        images[0] if images else "",
        question,
        gold,
        "",
        fields.flag(record, "search_required", searched),
        turns=turns,
        category=str(record.get("category") or ""),
        more_images=images[1:],
        provenance=fields.provenance("sharegpt", number),
    )


def sharegpt_record(row: Row, number: int, prompt_style: str = "paper") -> dict[str, Any]:
    """The record of a row: its conversation with the prompts of an episode, or else its question and gold answer.

    Crop boxes, kind, placements, meta and provenance are left out. Images are stored as in the row.

    Raises:
      DataError: a text contains an image mark.
    """
    question = first_turn_prompt(row.question, prompt_style) if row.turns else row.question
    said = [("human", fields.with_marks(question, len(row.images)))]
    for turn in row.turns:
        said.append(("gpt", turn.text))
        if turn.observation is not None:
            # Not "observation", whose text LLaMA-Factory's Qwen template puts into its own tags.
            said.append(("human", turn.observation + later_prompt(parse_turn(turn.text).action, prompt_style)))
    if not row.turns:
        said.append(("gpt", row.answers[0]))
    for _, text in said[1:]:
        fields.refuse_marks(text)
    return {
        "id": row.id,
        "conversations": [{"from": speaker, "value": text} for speaker, text in said],
        "images": [*row.images],
        "answers": [*row.answers],
        "category": row.category,
        "search_required": row.search_required,
    }


def write(listed: Iterable[dict[str, Any]], path: Path) -> None:
    """Writes records as a JSON list."""
    with path.open("w", encoding="utf-8") as out:
        out.write("[")
        out.writelines(f"{',' if i else ''}\n{jsonl.dumps(record)}" for i, record in enumerate(listed))
        out.write("\n]\n")


def _messages(record: Mapping[str, Any]) -> tuple[list[Said], list[Said]]:
    """The messages of user and assistant in turn; and the system's, which are not read (the protocol defines the prompt)."""
    field = "conversations" if "conversations" in record else "messages"
    listed = record.get(field)
    if not isinstance(listed, list) or not listed:
        raise DataError(f"{field}: must list messages")
    said: list[Said] = []
    unread: list[Said] = []
    for i, message in enumerate(listed):
        if not isinstance(message, Mapping):
            raise DataError(f"{field}[{i}]: must be an object")
        role, value = message.get("from", message.get("role")), message.get("value", message.get("content"))
        if role == "system":
            unread += [record_images.said(value, f"{field}[{i}]")] if value else []
            continue
        expected = _ASSISTANT if len(said) % 2 else _USER
        if role not in expected:
            raise DataError(f"{field}[{i}]: '{role}' is the role, expected one of {', '.join(expected)}")
        said.append(record_images.said(value, f"{field}[{i}]"))
    if len(said) < 2 or len(said) % 2:
        raise DataError(f"{field}: must end with the assistant's answer")
    return said, unread


def _bare_question(prompt: str) -> str:
    """The question without the protocol's instruction around it, which the renderer writes again."""
    for style in PROMPT_STYLES:
        head, tail = first_turn_prompt("\0", style).split("\0")
        head, tail = head.strip(), tail.strip()
        if (head or tail) and prompt.startswith(head) and prompt.endswith(tail):
            return prompt.removeprefix(head).removesuffix(tail).strip()
    return prompt


def _observation(written: str, seen: str) -> str:
    """The observation without the prompt of the next turn, which the renderer writes again."""
    inside, close, rest = seen.partition(_CLOSE)
    prompts = {later_prompt(parse_turn(written).action, style).strip() for style in PROMPT_STYLES} | {""}
    return inside + close if rest.strip() in prompts else seen
