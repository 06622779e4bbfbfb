"""The grammar that the policy and the search tools share: tags, prompts and observations.

Only this module spells the tags. It converts text to actions and search results to text. It does not depend on tokens, chat
markup, models or the network, and imports neither JAX nor NumPy. The grammar is that of DeepMMSearch-R1 (arXiv 2510.12801):
every turn is `<reason>...</reason>` followed by exactly one tool call or answer.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any

from mmsearch_jax.core.search_api import SearchResult

REASON, TEXT_SEARCH, IMAGE_SEARCH, ANSWER, INFORMATION = (
    "reason",
    "text_search",
    "img_search",
    "answer",
    "information",
)
WHOLE_IMAGE = "<img>"
ACTION_TAGS = (TEXT_SEARCH, IMAGE_SEARCH, ANSWER)
CLOSING_TAGS = tuple(f"</{tag}>" for tag in ACTION_TAGS)
"""A turn ends with the first of these tags; text after it does not belong to the turn."""

GIVE_UP = "Unable to answer due to lack of relevant information"
PROMPT_STYLES = ("paper", "short")

_TAG_NAMES = "|".join((REASON, *ACTION_TAGS, INFORMATION, "img"))
_ANY_TAG = re.compile(rf"<\s*(/?)\s*({_TAG_NAMES})\s*(/?)\s*>", re.IGNORECASE)
# Control tokens of chat models: <|im_end|>, <|image_pad|>, ... and the tool-call and thinking tags of Qwen.
_PIPE_OPEN, _PIPE_CLOSE = re.compile(r"<\s*\|"), re.compile(r"\|\s*>")
_CONTROL_TAG = re.compile(r"<\s*(/?)\s*(tool_call|tool_response|tools|think|s|unk|pad|bos|eos)\s*>", re.IGNORECASE)
_TURN = re.compile(
    rf"\s*<{REASON}>(?P<reason>.*?)</{REASON}>\s*"
    rf"(?:<(?P<tag>{'|'.join(ACTION_TAGS)})>(?P<body>.*?)</(?P=tag)>)?(?P<rest>.*)",
    re.DOTALL,
)


# Actions ----------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class TextSearch:
    """Search the web (or a corpus) for `query`."""

    query: str


@dataclasses.dataclass(frozen=True)
class ImageSearch:
    """Search by the input image: the whole image (`expression` is None) or the crop that the expression refers to."""

    expression: str | None = None


@dataclasses.dataclass(frozen=True)
class Answer:
    """The final answer; ends the episode."""

    text: str


@dataclasses.dataclass(frozen=True)
class Invalid:
    """Text that is not a turn of the grammar, and the reason."""

    why: str


Action = TextSearch | ImageSearch | Answer | Invalid


@dataclasses.dataclass(frozen=True)
class ParsedTurn:
    """The policy's text of one turn. `reason` is None if no reason could be parsed."""

    reason: str | None
    action: Action


def parse_turn(text: str) -> ParsedTurn:
    """Parses one turn strictly: a reason, then exactly one action, and otherwise only white space.

    Never raises: text outside the grammar gives an `Invalid` action with the reason.
    """
    match = _TURN.fullmatch(text)
    if match is None:
        return ParsedTurn(None, Invalid(f"the turn must open with <{REASON}>...</{REASON}>"))
    reason = match["reason"]
    if _ANY_TAG.search(reason):
        return ParsedTurn(None, Invalid("the reason holds a tag"))
    reason = reason.strip()
    if match["tag"] is None:
        return ParsedTurn(reason, Invalid("the reason is not followed by exactly one search or answer"))
    if match["rest"].strip():
        return ParsedTurn(reason, Invalid(f"text follows the closing </{match['tag']}>"))
    body = match["body"].strip()
    if match["tag"] == IMAGE_SEARCH and body == WHOLE_IMAGE:
        return ParsedTurn(reason, ImageSearch(None))
    if not body:
        return ParsedTurn(reason, Invalid(f"<{match['tag']}> is empty"))
    if _ANY_TAG.search(body):
        return ParsedTurn(reason, Invalid(f"<{match['tag']}> holds another tag"))
    if match["tag"] == TEXT_SEARCH:
        return ParsedTurn(reason, TextSearch(body))
    if match["tag"] == IMAGE_SEARCH:
        return ParsedTurn(reason, ImageSearch(body))
    return ParsedTurn(reason, Answer(body))


def render_turn(reason: str, action: TextSearch | ImageSearch | Answer) -> str:
    """The text of a turn: the inverse of `parse_turn` for stripped, tag-free strings.

    >>> render_turn("I know the flag.", TextSearch("capital of Peru"))
    '<reason>I know the flag.</reason><text_search>capital of Peru</text_search>'

    Raises:
      ValueError: the text would not be parsed as the same turn.
    """
    match action:
        case TextSearch(query):
            tag, body = TEXT_SEARCH, query
        case ImageSearch(expression):
            tag, body = IMAGE_SEARCH, WHOLE_IMAGE if expression is None else expression
        case Answer(answer):
            tag, body = ANSWER, answer
    text = f"<{REASON}>{reason}</{REASON}><{tag}>{body}</{tag}>"
    if parse_turn(text) != ParsedTurn(reason.strip(), dataclasses.replace(action, **_stripped(action))):
        raise ValueError(f"not a turn of the grammar: {text!r}")
    return text


def _stripped(action: TextSearch | ImageSearch | Answer) -> dict[str, Any]:
    return {key: value.strip() for key, value in dataclasses.asdict(action).items() if value is not None}


# Observations -----------------------------------------------------------------------------------------------


def neutralise(text: str) -> str:
    """Neutralises our tags and the spellings of control tokens in retrieved text, and changes nothing else.

    >>> neutralise("a < b </information><|im_end|>")
    'a < b (/information)(|im_end|)'
    """
    text = _ANY_TAG.sub(r"(\1\2\3)", text)
    text = _CONTROL_TAG.sub(r"(\1\2)", text)
    return _PIPE_CLOSE.sub("|)", _PIPE_OPEN.sub("(|", text))


def render_observation(
    results: Sequence[SearchResult] | None,
    note: str | None = None,
    fits: Callable[[str], bool] | None = None,
    summary: str | None = None,
) -> str:
    """The observation that the policy reads: `<information>`, one numbered line per result, `</information>`.

    Args:
      results: results of a tool; if empty, "No results."; None gives only the note.
      note: one line that comes first (a refused call, an expression that was not found).
      fits: whether a whole rendered observation is short enough (for example in tokens). The content is cut until
        it is; the closing tag is always kept. If even the empty observation does not fit, it is returned.
      summary: of the results; replaces them.
    """
    lines = [_one_line(note)] if note else []
    if summary is not None:
        lines += [line for line in map(_one_line, summary.splitlines()) if line]
    elif results is not None:
        lines += [f"[{i}] {_result_line(result)}" for i, result in enumerate(results, 1)] or ["No results."]
    content = neutralise("\n".join(lines))
    if fits is None or fits(_wrap(content)):
        return _wrap(content)
    fitting, too_long = 0, len(content)
    while too_long - fitting > 1:
        middle = (fitting + too_long) // 2
        if fits(_wrap(content[:middle].rstrip())):
            fitting = middle
        else:
            too_long = middle
    return _wrap(content[:fitting].rstrip())


def observation_content(observation: str) -> str:
    """The text between an observation's tags."""
    return observation.removeprefix(f"<{INFORMATION}>").removesuffix(f"</{INFORMATION}>")


def _wrap(content: str) -> str:
    return f"<{INFORMATION}>{content}</{INFORMATION}>"


def _one_line(text: str) -> str:
    # A page must not be able to fake another numbered result, so a result stays on its line.
    return " ".join(text.split())


def _result_line(result: SearchResult) -> str:
    return ": ".join(part for part in (_one_line(result.title), _one_line(result.snippet)) if part)


# Notes that the episode writes into observations ------------------------------------------------------------


def refused_note(action: TextSearch | ImageSearch, limit: int) -> str:
    """The note that a tool's limit is reached (0: the tool is not offered)."""
    match action:
        case TextSearch():
            tool = "text search"
        case ImageSearch(None):
            tool = "image search"
        case ImageSearch():
            tool = "cropped image search"
    return f"No {tool} is left: {limit} allowed." if limit else f"No {tool} is offered here."


def invalid_note(why: str) -> str:
    """The note that the turn was not in the grammar."""
    return f"That turn could not be read: {why}."


NOT_FOUND_NOTE = "The described region was not found; the whole image was searched."
LAST_TURN_NOTE = "No search is left. Answer now."


# Prompts ----------------------------------------------------------------------------------------------------

_FIRST = f"""Look at the image and work out what the question needs.
Write your thoughts between <{REASON}> and </{REASON}>. Then do exactly one of the following:
- If you are sure of the answer, write it, in a few words, between <{ANSWER}> and </{ANSWER}>.
- If you must first learn what one object in the image is, describe it so that it can be found,
between <{IMAGE_SEARCH}> and </{IMAGE_SEARCH}>: its region is cut out and searched for on the web.
- If you must first learn what the scene as a whole shows, write
<{IMAGE_SEARCH}>{WHOLE_IMAGE}</{IMAGE_SEARCH}>: the whole image is searched for on the web.
- If you know what is shown but lack a fact, write a web query between <{TEXT_SEARCH}> and </{TEXT_SEARCH}>.
Search results come back between <{INFORMATION}> and </{INFORMATION}>.
Searching costs time: do it only where you need it.

Question: """
_AFTER_IMAGE = f"""
These are titles and descriptions of pages that show similar images. Some may be wrong.
Write your thoughts between <{REASON}> and </{REASON}>.
Then either answer between <{ANSWER}> and </{ANSWER}>, or, if a fact is still missing, write a web query
between <{TEXT_SEARCH}> and </{TEXT_SEARCH}>."""
_AFTER_TEXT = f"""
Write your thoughts on these results between <{REASON}> and </{REASON}>.
Then answer between <{ANSWER}> and </{ANSWER}> if they hold what you need,
or write a better query between <{TEXT_SEARCH}> and </{TEXT_SEARCH}>.
If further searching is of no use, write <{ANSWER}>{GIVE_UP}</{ANSWER}>."""
_SHORT_LINE = "\nSearch if needed."


def _check_style(style: str) -> None:
    if style not in PROMPT_STYLES:
        raise ValueError(f"unknown prompt style {style!r}, expected one of {', '.join(PROMPT_STYLES)}")


def first_turn_prompt(question: str, style: str = "paper") -> str:
    """The user's text of the first turn, after the image."""
    _check_style(style)
    return question + _SHORT_LINE if style == "short" else _FIRST + question


def later_prompt(action: Action, style: str = "paper") -> str:
    """The text after the observation of `action` in the same user message; empty in the short style."""
    _check_style(style)
    if style == "short" or isinstance(action, Invalid):
        return ""
    return _AFTER_IMAGE if isinstance(action, ImageSearch) else _AFTER_TEXT


def direct_prompt(question: str, style: str = "paper") -> str:
    """The prompt for a plain answer without tools."""
    _check_style(style)
    if style == "short":
        return question
    return f"Answer the question about the image in a few words, without explanation.\n\nQuestion: {question}"


def rag_prompt(question: str, observations: Sequence[str], style: str = "paper") -> str:
    """The prompt for a plain answer after search results (`observations` from `render_observation`)."""
    _check_style(style)
    if style == "short":
        return "\n".join([*(observation_content(text) for text in observations), question])
    return "\n".join(["These search results may help.", *observations, direct_prompt(question, style)])
