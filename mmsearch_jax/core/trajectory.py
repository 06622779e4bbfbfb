"""The record of one episode: token ids that are only appended, the provenance of each, and the events between them.

Rollout, rewards, learners and evaluation share this record. It does not depend on tokenizers, models or tools, and imports
neither JAX nor NumPy.
"""

from __future__ import annotations

import dataclasses
import enum
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mmsearch_jax.core.errors import DataError
from mmsearch_jax.core.protocol import Action, Answer, ImageSearch, Invalid, TextSearch
from mmsearch_jax.core.search_api import SearchResult

PROMPT, SAMPLED, OBSERVATION = 0, 1, 2
"""Provenance of a token: given by the user, sampled by the policy, or inserted by the host. Only SAMPLED tokens
are trained."""


class Status(enum.StrEnum):
    """How an episode ended. The value is the word in JSON."""

    RUNNING = "running"
    """Has not ended, or never began."""
    ANSWERED = "answered"
    NO_ANSWER = "no_answer"
    """The last allowed turn did not answer."""
    OVERLONG = "overlong"
    """A turn or the trajectory reached its token limit."""
    INVALID_ACTION = "invalid_action"
    """A turn was outside the grammar, which ends the episode under its rules."""
    TOOL_FAILED = "tool_failed"
    """A tool returned no result."""
    POLICY_FAILED = "policy_failed"
    """The endpoint that serves the policy returned no turn."""
    JUDGE_FAILED = "judge_failed"
    """The judge returned no verdict on the answer."""
    DEADLINE = "deadline"
    """The episode took longer than its deadline."""
    SURPLUS = "surplus"
    """Enough episodes of its group had ended."""
    CANCELLED = "cancelled"
    """The client has disconnected."""
    UNUSABLE = "unusable"
    """The question cannot be asked: its image cannot be shown."""


INFRASTRUCTURE_FAILURES = frozenset(
    {
        Status.TOOL_FAILED,
        Status.POLICY_FAILED,
        Status.JUDGE_FAILED,
        Status.DEADLINE,
        Status.SURPLUS,
        Status.CANCELLED,
        Status.UNUSABLE,
    }
)
"""Endings that do not evaluate the policy: such trajectories are dropped, never scored."""


class SearchKind(enum.StrEnum):
    """What a search asked for. The value is the word in summaries and reports."""

    TEXT = "text"
    WHOLE_IMAGE = "whole_image"
    CROP = "crop"
    """A part of the image, named by a referring expression."""


def search_kind(tool: str, query: str | None) -> SearchKind:
    """The kind of a tool call, by two fields of its `ToolRecord`."""
    if tool == "text_search":
        return SearchKind.TEXT
    return SearchKind.WHOLE_IMAGE if query is None else SearchKind.CROP


_ACTIONS = {"text_search": TextSearch, "image_search": ImageSearch, "answer": Answer, "invalid": Invalid}


@dataclasses.dataclass(frozen=True)
class ToolRecord:
    """One tool call. `tool` is "text_search" or "image_search"; `query` is the query or referring expression
    (None: the whole image); `box` is where the expression was found, in pixels of the input image; `refused`
    calls were never sent (a limit), `error` is set when the tool failed; `cost_usd` is the cost that the server reports."""

    tool: str
    query: str | None = None
    box: tuple[int, int, int, int] | None = None
    grounded: bool = False
    results: tuple[SearchResult, ...] = ()
    note: str | None = None
    elapsed_ms: float = 0.0
    refused: bool = False
    error: str | None = None
    cost_usd: float = 0.0

    @property
    def kind(self) -> SearchKind:
        """What the call asked for."""
        return search_kind(self.tool, self.query)


@dataclasses.dataclass(frozen=True)
class Turn:
    """One generation with its observation.

    `token_ids[start:end]` of the trajectory are the policy's tokens (`text`). `observation` is the text
    returned to it, without chat markup; None if the episode ended.
    """

    text: str
    reason: str | None
    action: Action
    start: int
    end: int
    observation: str | None = None
    tool: ToolRecord | None = None


@dataclasses.dataclass
class Trajectory:
    """One episode, token by token. Lists grow together and are never rewritten.

    A two-turn episode. One letter stands for each run of tokens (P prompt and image, A the policy's tokens, O an observation
    with its chat markup), with its provenance and whether it is trained:

        token_ids           P P P P   A0 A0 A0   O0 O0 O0 O0   A1 A1
        provenance          0 0 0 0    1  1  1    2  2  2  2    1  1
        loss_mask           . . . .    x  x  x    .  .  .  .    x  x
        logprobs            0 0 0 0   -1 -2 -1    0  0  0  0   -3 -1
        turns               [Turn(start=4, end=7, ...), Turn(start=11, end=13, ...)]

    A sampled token may contain the end of a closing tag and further text. That token is dropped, and the host appends the rest
    of the tag with provenance 2, so the last tokens of a turn may be untrained.

    Attributes:
      logprobs: natural log-probability of each sampled token at the sampling temperature (1 for greedy), over the whole
        vocabulary, as the learner recomputes it; 0.0 for other tokens.
      image_grids: (t, h, w) in patches of each image, in the order of their placeholders.
      policy_version: version of the weights that sampled, as given to `Engine.set_weights`.
      seconds: wall time from the start of the episode to its end.
    """

    id: str
    row_id: str
    group_id: str
    seed: int = 0
    policy_version: int = 0
    token_ids: list[int] = dataclasses.field(default_factory=list)
    provenance: list[int] = dataclasses.field(default_factory=list)
    logprobs: list[float] = dataclasses.field(default_factory=list)
    image_grids: list[tuple[int, int, int]] = dataclasses.field(default_factory=list)
    turns: list[Turn] = dataclasses.field(default_factory=list)
    status: Status = Status.RUNNING
    answer: str | None = None
    error: str | None = None
    reward: float | None = None
    reward_parts: dict[str, float] = dataclasses.field(default_factory=dict)
    seconds: float = dataclasses.field(default=0.0, compare=False)

    def append(self, token_ids: Sequence[int], provenance: int) -> None:
        """Appends tokens that were not sampled."""
        assert provenance in (PROMPT, OBSERVATION), "sampled tokens come with log-probs: use append_sampled"
        self.token_ids.extend(token_ids)
        self.provenance.extend([provenance] * len(token_ids))
        self.logprobs.extend([0.0] * len(token_ids))

    def append_sampled(self, token_ids: Sequence[int], logprobs: Sequence[float]) -> None:
        """Appends tokens that the policy sampled."""
        assert len(token_ids) == len(logprobs)
        self.token_ids.extend(token_ids)
        self.provenance.extend([SAMPLED] * len(token_ids))
        self.logprobs.extend(logprobs)

    @property
    def loss_mask(self) -> list[bool]:
        """True on the tokens that the policy sampled."""
        return [source == SAMPLED for source in self.provenance]

    @property
    def num_sampled(self) -> int:
        """Number of tokens that the policy sampled."""
        return self.provenance.count(SAMPLED)

    @property
    def infrastructure_failure(self) -> bool:
        """Whether the ending does not evaluate the policy."""
        return self.status in INFRASTRUCTURE_FAILURES

    def tool_calls(self, tool: str | None = None) -> list[ToolRecord]:
        """Calls that were sent, of one tool or of all."""
        records = [turn.tool for turn in self.turns if turn.tool is not None and not turn.tool.refused]
        return [record for record in records if tool in (None, record.tool)]

    def to_json(self) -> dict[str, Any]:
        """A dict of plain values."""
        record = dataclasses.asdict(self)
        record["status"] = self.status.value
        for turn, plain in zip(self.turns, record["turns"], strict=True):
            kind = next(name for name, action in _ACTIONS.items() if isinstance(turn.action, action))
            plain["action"] = {"kind": kind, **plain["action"]}
        return record

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Trajectory:
        """The inverse of `to_json`.

        Raises:
          DataError: a field is missing or misshapen.
        """
        try:
            values = {field.name: record[field.name] for field in dataclasses.fields(cls) if field.name in record}
            values["status"] = Status(values.get("status", Status.RUNNING))
            values["image_grids"] = [tuple(grid) for grid in values.get("image_grids", ())]
            values["turns"] = [_turn_from_json(turn) for turn in values.get("turns", ())]
            trajectory = cls(**values)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"not a trajectory record: {error!r}") from error
        lengths = [len(column) for column in (trajectory.token_ids, trajectory.provenance, trajectory.logprobs)]
        if len(set(lengths)) != 1:
            raise DataError(
                f"trajectory {trajectory.id}: token_ids, provenance and logprobs differ in length: {lengths}"
            )
        return trajectory


def _turn_from_json(record: dict[str, Any]) -> Turn:
    record = dict(record)
    action = dict(record["action"])
    record["action"] = _ACTIONS[action.pop("kind")](**action)
    if record.get("tool") is not None:
        tool = dict(record["tool"])
        tool["results"] = tuple(SearchResult.from_json(result) for result in tool.get("results", ()))
        tool["box"] = tuple(tool["box"]) if tool.get("box") else None
        record["tool"] = ToolRecord(**tool)
    return Turn(**record)


def write_jsonl(trajectories: Iterable[Trajectory], path: str | Path) -> None:
    """Writes one trajectory per line."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as out:
        for trajectory in trajectories:
            out.write(json.dumps(trajectory.to_json(), ensure_ascii=False) + "\n")


def read_jsonl(path: str | Path) -> Iterator[Trajectory]:
    """Reads the file of `write_jsonl`.

    Raises:
      DataError: the file is missing or a line is not a trajectory; the message names file and line.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"no trajectories at {path}")
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield Trajectory.from_json(json.loads(line))
            except (json.JSONDecodeError, DataError) as error:
                raise DataError(f"{path}, line {number}: {error}") from error
