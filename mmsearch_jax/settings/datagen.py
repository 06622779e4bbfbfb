"""Settings of datagen: a teacher makes conversations with search (rules and sizes of the paper: DeepMMSearch-R1, sec. 2)."""

from __future__ import annotations

import dataclasses

from mmsearch_jax.core.chat_endpoint import ChatEndpoint
from mmsearch_jax.core.settings import Section, SettingError, setting
from mmsearch_jax.settings.rollout import EpisodeConfig, ToolsConfig


@dataclasses.dataclass(frozen=True)
class DatagenEndpoint(ChatEndpoint):
    """A model that datagen calls."""

    deadline_s: float = setting(120.0, "seconds for one reply, including retries", above=0)
    max_concurrency: int = setting(16, "requests in progress at the same time", at_least=1)
    max_tokens: int = setting(2048, "maximum tokens of a reply; reasoning models need more", at_least=1)


@dataclasses.dataclass(frozen=True)
class SeedsConfig(Section):
    """The questions from which conversations are made."""

    path: str = setting("", "any file of rows")
    share: float = setting(1.0, "share of the rows to use, chosen by the seed", at_least=0, at_most=1)


@dataclasses.dataclass(frozen=True)
class LabelsConfig(Section):
    """Labels of the rows: category, and whether a search is required."""

    categories: tuple[str, ...] = setting(
        ("Arts", "Place", "People", "Industry", "Science", "Nature", "Entities", "Events"),
        "level 1 of MMSearch-R1's taxonomy (the paper's own names are unknown)",
    )
    target: DatagenEndpoint = setting(
        DatagenEndpoint(key_env="TARGET_API_KEY", temperature=1.0),
        "the policy to be trained, asked directly; no url: use the seed's label, or else whether the teacher searched",
    )
    samples: int = setting(4, "answers of the target to each question", at_least=1)
    required_below: float = setting(
        0.5, "a search is required if a smaller share of the target's answers is correct", at_least=0, at_most=1
    )

    def check(self) -> None:
        if not self.categories:
            raise SettingError("categories", "is empty: name at least one")


@dataclasses.dataclass(frozen=True)
class DatagenBudgetConfig(Section):
    """Limits over all runs in the work directory; 0: no limit."""

    teacher_calls: int = setting(0, "requests to the teacher", at_least=0)
    teacher_tokens: int = setting(0, "tokens of the teacher, including prompts", at_least=0)
    tool_calls: int = setting(0, "calls of the search server", at_least=0)
    target_calls: int = setting(0, "requests to the target policy", at_least=0)


@dataclasses.dataclass(frozen=True)
class BalanceConfig(Section):
    """Selection of the set's conversations: about uniform over categories."""

    size: int = setting(10_000, "rows of the set; 0: all available", at_least=0)
    search_share: float = setting(0.5, "share of the rows that need a search", at_least=0, at_most=1)


TEACHER_EPISODE = EpisodeConfig(max_tool_calls=8, max_text_searches=8, max_trajectory_tokens=6912)
"""The last turn must answer, and the paper drops conversations of 10 turns or more. The image's 1,280 tokens are not included
in the limit; with them a conversation fits in a row of 8,192."""


@dataclasses.dataclass(frozen=True)
class DatagenSettings(Section):
    """`mmsearch datagen`."""

    seed: int = setting(0, "chooses the seeds and the set", at_least=0)
    seeds: SeedsConfig = setting(SeedsConfig(), "the questions")
    teacher: DatagenEndpoint = setting(
        DatagenEndpoint(key_env="TEACHER_API_KEY", temperature=0.7), "the model that writes the turns"
    )
    judge: DatagenEndpoint = setting(
        DatagenEndpoint(key_env="JUDGE_API_KEY"),
        "asked if the answer match rejects an answer; no url: only the answer match decides",
    )
    tools: ToolsConfig = setting(ToolsConfig(url="", max_concurrency=16), "the search server")
    concurrency: int = setting(16, "seeds processed at the same time", at_least=1)
    max_failures: int = setting(50, "consecutive seeds that fail at an endpoint, before the run stops", at_least=1)
    tokenizer: str = setting(
        "", "directory of the policy to be trained: its tokenizer counts tokens and cuts observations, as in GRPO"
    )
    episode: EpisodeConfig = setting(TEACHER_EPISODE, "rules of a conversation: those of the GRPO run that follows")
    labels: LabelsConfig = setting(LabelsConfig(), "categories, and whether a search is required")
    budget: DatagenBudgetConfig = setting(DatagenBudgetConfig(), "limits on calls and tokens")
    balance: BalanceConfig = setting(BalanceConfig(), "selection of the set")

    def check(self) -> None:
        if self.episode.plain:
            raise SettingError(
                "episode.mode", f"is '{self.episode.mode}': conversations with search need policy or prompted"
            )
        if self.episode.on_invalid != "end":
            raise SettingError(
                "episode.on_invalid",
                f"is '{self.episode.on_invalid}': use end, because a turn outside the grammar must not be trained",
            )

    def check_ready(self) -> None:
        for path, value in (
            ("seeds.path", self.seeds.path),
            ("teacher.url", self.teacher.url),
            ("tools.url", self.tools.url),
            ("tokenizer", self.tokenizer),
        ):
            if not value:
                raise SettingError(path, f"is empty: set it with --config.{path}=...")
