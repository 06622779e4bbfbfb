"""Settings of an evaluation: mode, ablations, samples, the policy that answers, the judge, the benchmarks."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping

from mmsearch_jax.core.chat_endpoint import ChatEndpoint
from mmsearch_jax.core.settings import Section, SettingError, setting
from mmsearch_jax.settings.learning import JudgeConfig, check_file
from mmsearch_jax.settings.rollout import MODES, EpisodeConfig

METRICS = (
    "match", "exact_match", "infoseek", "simplevqa", "f1", "f1_recall", "vqa_accuracy", "direct_answer", "multiple_choice",
)  # fmt: skip

_NAME = r"\w[\w.-]*"
_NAME_RULE = "use letters, digits, '.', '_' and '-', for it names a directory"


@dataclasses.dataclass(frozen=True)
class EvalConfig(Section):
    """One evaluation."""

    name: str = setting("policy", "directory of the results, below WORKDIR/eval")
    mode: str = setting(
        "policy",
        "policy: tools by tags; prompted: the same with an untrained policy; direct: no tools; rag: fixed workflow",
        one_of=MODES,
    )
    allow_text: bool = setting(True, "ablation: offer text search")
    allow_image: bool = setting(True, "ablation: offer image search")
    allow_crop: bool = setting(True, "ablation: false searches with the whole image instead of a crop")
    max_text_searches: int = setting(
        0, "ablation: text searches per episode; 0: the value of episode.max_text_searches", at_least=0
    )
    oracle: bool = setting(False, "ablation: the row's own evidence instead of search")
    temperature: float = setting(0.0, "sampling temperature; 0 decodes greedily", at_least=0)
    samples: int = setting(
        1, "samples per question; several need a temperature, and give pass@k and the majority", at_least=1
    )
    max_unusable: float = setting(
        0.5,
        "largest share of rows that cannot be asked (an image that cannot be read or is too narrow, several images); they are "
        "listed in unreadable.json and the summary, and above this share the evaluation stops",
        at_least=0,
        at_most=1,
    )
    limit: int = setting(0, "questions to ask, in order; 0: all", at_least=0)
    direct: str = setting(
        "", "name of a direct evaluation in this work directory, to count needless searches; empty: use the rows' flags"
    )
    if_changed: str = setting(
        "refuse",
        "if the directory contains samples of other settings: refuse, new (another directory next to it) or replace",
        one_of=("refuse", "new", "replace"),
    )

    def check(self) -> None:
        if not re.fullmatch(_NAME, self.name):
            raise SettingError("name", f"is '{self.name}': {_NAME_RULE}")
        if self.samples > 1 and not self.temperature:
            raise SettingError(
                "samples", f"is {self.samples}, but at temperature 0 all samples are the same: also set temperature"
            )


@dataclasses.dataclass(frozen=True)
class EndpointConfig(ChatEndpoint):
    """A served policy instead of `checkpoint`; none if `url` is empty."""

    key_env: str = setting("POLICY_API_KEY", "environment variable with the endpoint's key, if it needs one")
    deadline_s: float = setting(120.0, "seconds for one reply, including retries", above=0)
    price_prompt: float = setting(0.0, "dollars per million prompt tokens", at_least=0)
    price_reply: float = setting(0.0, "dollars per million reply tokens", at_least=0)


@dataclasses.dataclass(frozen=True)
class EvaluationBudgetConfig(Section):
    """Ends an evaluation early; the same command resumes it. 0: no limit."""

    calls: int = setting(0, "tool calls over all runs of the directory", at_least=0)
    dollars: float = setting(0.0, "dollars over all runs of the directory", at_least=0)
    minutes: float = setting(0.0, "minutes of this run", at_least=0)


@dataclasses.dataclass(frozen=True)
class BenchmarkConfig(Section):
    """One set of questions."""

    source: str = setting(
        doc="a published set as `mmsearch data convert` names it, mmsearch, livevqa, miniworld, or rows for a file of rows"
    )
    path: str = setting("", "its directory or file, relative to `data`; a file's extension gives its format")
    split: str = setting("", "name of the split in the set; several separated by commas")
    metric: str = setting("match", "the metric of the benchmark", one_of=METRICS)
    sample: int = setting(0, "rows to take, chosen by the seed; 0: all", at_least=0)
    only: Mapping[str, str] = setting({}, "values of `meta` that a row must have")
    choices: bool = setting(False, "whether the question lists the row's choices, one of which is the answer")
    where: str = setting("", "source of the set")


@dataclasses.dataclass(frozen=True)
class OwnRowsConfig(Section):
    """A set of questions of one's own; none if `path` is empty. It takes the place of the benchmarks."""

    path: str = setting(
        "", "file of rows, or a directory with rows.jsonl; a relative path starts at the current directory"
    )
    name: str = setting("", "name of the set in the results; empty: the file's name without its extension")
    metric: str = setting("match", "its metric", one_of=METRICS)

    def check(self) -> None:
        if self.name and not self.path:
            raise SettingError("path", f"is empty, but rows.name is '{self.name}': also name the file of rows")
        if self.name and not re.fullmatch(_NAME, self.name):
            raise SettingError("name", f"is '{self.name}': {_NAME_RULE}")

    def check_ready(self) -> None:
        if self.path:
            check_file("path", self.path)

    @property
    def benchmark(self) -> tuple[str, BenchmarkConfig]:
        """The set's name, and the set as a benchmark."""
        path = os.path.abspath(self.path)
        name = self.name or re.sub(r"[^\w.-]+", "_", os.path.splitext(os.path.basename(path))[0]).strip("._-") or "rows"
        return name, BenchmarkConfig("rows", path, metric=self.metric)


@dataclasses.dataclass(frozen=True)
class MiniworldConfig(Section):
    """The mini-world as a benchmark."""

    tiny_rules: bool = setting(
        True, "checkpoints get the tiny policy's short prompts and limits; false: use `episode`, as for endpoints"
    )
    episode: EpisodeConfig = setting(EpisodeConfig(), "those prompts and limits")


NO_SERVER = "needs a search server: start one with `mmsearch serve-tools`, and give --config.tools.url"
"""Of a benchmark whose episodes search, if no server is named."""
EVALUATION_JUDGE = JudgeConfig(deadline_s=120.0)
