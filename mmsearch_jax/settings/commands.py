"""The whole tree of each command that works with a policy."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Self

from mmsearch_jax.core.settings import Section, SettingError, setting
from mmsearch_jax.settings.evaluation import (
    EVALUATION_JUDGE,
    BenchmarkConfig,
    EndpointConfig,
    EvalConfig,
    EvaluationBudgetConfig,
    MiniworldConfig,
    OwnRowsConfig,
)
from mmsearch_jax.settings.learning import TOY_WORLD, GRPOConfig, JudgeConfig, RunConfig, SFTConfig, check_file
from mmsearch_jax.settings.policy import COMPUTE_DTYPES, REMAT, LoRAConfig, MeshConfig, ShardingConfig
from mmsearch_jax.settings.rollout import EngineConfig, EpisodeConfig, ToolsConfig
from mmsearch_jax.settings.serving import ServeConfig
from mmsearch_jax.settings.world import WorldConfig


@dataclasses.dataclass(frozen=True)
class PolicySettings(Section):
    """Settings of all commands that load a policy."""

    seed: int = setting(0, "seed of all random numbers", at_least=0)
    checkpoint: str = setting(
        "runs/sft/policies/sft", "directory of a policy: Hugging Face's layout, or made by `mmsearch import-hf`"
    )
    dtype: str = setting(
        "bfloat16",
        "dtype of the computation; trained parameters and the optimiser are always float32",
        one_of=COMPUTE_DTYPES,
    )
    max_pixels: int = setting(
        1280 * 28 * 28,
        "area to which larger images are shrunk (28 x 28 pixels are a token); 0: the checkpoint's value",
        at_least=0,
    )
    world: WorldConfig = setting(WorldConfig(), "the embedded mini-world")
    tools: ToolsConfig = setting(ToolsConfig(), "the search server")
    episode: EpisodeConfig = setting(EpisodeConfig(), "rules of an episode")
    engine: EngineConfig = setting(EngineConfig(), "sizes of the sampling engine")

    def check(self) -> None:
        needed = self.episode.max_trajectory_tokens
        if 0 < self.engine.max_length < needed:
            raise SettingError(
                "engine.max_length",
                f"is {self.engine.max_length}, but episode.max_trajectory_tokens is {needed}: raise it, or set it to 0",
            )

    @property
    def sized_engine(self) -> EngineConfig:
        """The engine's sizes with `max_length` set."""
        return dataclasses.replace(self.engine, max_length=self.engine.max_length or self.episode.max_trajectory_tokens)

    def replace(self, **changes: object) -> Self:
        """A copy with other values."""
        return dataclasses.replace(self, **changes)


@dataclasses.dataclass(frozen=True)
class LearnerSettings(PolicySettings):
    """Settings of all commands that train a policy."""

    lora: LoRAConfig = setting(LoRAConfig(), "low-rank updates")
    remat: str = setting(
        "full",
        "what the backward pass recomputes to save memory: none, dots (all except products with weights) or full",
        one_of=REMAT,
    )
    mesh: MeshConfig = setting(MeshConfig(), "the device mesh (docs/training.md)")
    sharding_rules: ShardingConfig = setting(
        ShardingConfig(), "how parameters are split over the mesh: embed=() keeps weights whole over fsdp"
    )
    run: RunConfig = setting(RunConfig(), "checkpoints, resuming, logs and traces")


@dataclasses.dataclass(frozen=True)
class SFTSettings(LearnerSettings):
    """`mmsearch sft`."""

    sft: SFTConfig = setting(SFTConfig(), "the recipe")


@dataclasses.dataclass(frozen=True)
class GRPOSettings(LearnerSettings):
    """`mmsearch grpo`."""

    grpo: GRPOConfig = setting(GRPOConfig(), "the recipe")

    def check(self) -> None:
        super().check()
        buffer, tokens = self.grpo.reward.overlong_buffer, self.episode.max_trajectory_tokens
        if self.grpo.batch.length < tokens:
            raise SettingError(
                "grpo.batch.length",
                f"is {self.grpo.batch.length}, but episode.max_trajectory_tokens is {tokens}: a trajectory must fit into a "
                f"row; set it to {tokens}, or lower episode.max_trajectory_tokens",
            )
        if buffer and buffer >= tokens:
            raise SettingError(
                "grpo.reward.overlong_buffer", f"is {buffer}, but episode.max_trajectory_tokens is {tokens}: lower it"
            )

    def check_ready(self) -> None:
        if not self.grpo.rows:
            raise SettingError(
                "grpo.rows",
                f"is empty: name a file of rows (`mmsearch data convert` makes them), or {TOY_WORLD} for the toy world",
            )
        if self.grpo.rows != TOY_WORLD and not self.tools.url:
            raise SettingError(
                "tools.url", "is empty, but grpo.rows names your own rows: name the server that searches for them"
            )
        for field in ("rows", "eval_rows"):
            if getattr(self.grpo, field) not in ("", TOY_WORLD):
                check_file(f"grpo.{field}", getattr(self.grpo, field))


@dataclasses.dataclass(frozen=True)
class QuickstartSettings(SFTSettings, GRPOSettings):
    """`mmsearch quickstart`: SFT and GRPO in the same world."""


@dataclasses.dataclass(frozen=True)
class EvaluationSettings(PolicySettings):
    """`mmsearch eval` and `mmsearch ask`."""

    base: str = setting(
        "", "for a LoRA adapter: the checkpoint that it belongs to; empty: the one that the adapter names"
    )
    eval: EvalConfig = setting(EvalConfig(), "mode, ablations, samples")
    endpoint: EndpointConfig = setting(EndpointConfig(), "a served policy instead of `checkpoint`")
    judge: JudgeConfig = setting(EVALUATION_JUDGE, "the LLM judge; no url: none")
    budget: EvaluationBudgetConfig = setting(EvaluationBudgetConfig(), "limits on calls, cost and time")
    data: str = setting("data/benchmarks", "directory that contains the directories of the benchmarks")
    only: str = setting("", "benchmarks to run, separated by commas; empty: all")
    benchmarks: Mapping[str, BenchmarkConfig] = setting(
        {}, "sets of questions by name; none: only the mini-world's real half"
    )
    rows: OwnRowsConfig = setting(OwnRowsConfig(), "a set of one's own instead of the benchmarks")
    miniworld: MiniworldConfig = setting(MiniworldConfig(), "the mini-world among the benchmarks")

    def check(self) -> None:
        super().check()
        if self.episode.mode != EpisodeConfig.mode:
            raise SettingError("episode.mode", f"is '{self.episode.mode}': set an evaluation's mode with eval.mode")
        if self.rows.path and self.named:
            raise SettingError("only", f"is '{self.only}', but rows.path is '{self.rows.path}': give one of the two")
        for name in self.named:
            if name not in self.benchmarks:
                raise SettingError(
                    "only",
                    f"names '{name}', which is not a benchmark of this config: use some of {', '.join(self.benchmarks)}"
                    if self.benchmarks
                    else f"names '{name}', but this config has no benchmarks: give --config configs/eval/deepmmsearch.py",
                )

    def lacks_server(self, name: str) -> bool:
        """Whether the episodes of a benchmark search, but no server is named. The mini-world starts its own."""
        if self.sets[name].source == "miniworld" or self.tools.url:
            return False
        return self.eval.mode != "direct" and not self.eval.oracle

    def rules(self, name: str = "") -> EpisodeConfig:
        """The rules of the episodes of a set, with this evaluation's mode and ablations; "": of the mini-world on its own."""
        tiny = self.miniworld.tiny_rules and not self.endpoint.url
        own = name and self.sets[name].source == "miniworld"
        episode, changed = self.miniworld.episode if own and tiny else self.episode, self.eval
        return dataclasses.replace(
            episode,
            mode=changed.mode,
            allow_text=episode.allow_text and changed.allow_text,
            allow_image=episode.allow_image and changed.allow_image,
            allow_crop=episode.allow_crop and changed.allow_crop,
            max_text_searches=changed.max_text_searches or episode.max_text_searches,
        )

    @property
    def named(self) -> tuple[str, ...]:
        """Names of the benchmarks that were asked for by name."""
        return tuple(name.strip() for name in self.only.split(",") if name.strip())

    @property
    def sets(self) -> Mapping[str, BenchmarkConfig]:
        """The sets of questions by name; empty: only the mini-world's real half."""
        return dict([self.rows.benchmark]) if self.rows.path else self.benchmarks

    @property
    def chosen(self) -> tuple[str, ...]:
        """Names of the sets to run."""
        return self.named or tuple(self.sets)


@dataclasses.dataclass(frozen=True)
class ServingSettings(PolicySettings):
    """`mmsearch serve`."""

    serve: ServeConfig = setting(ServeConfig(), "name, access and limits of the server")
