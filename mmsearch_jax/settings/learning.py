"""Settings of training: batches, optimiser, the run around the steps, SFT, GRPO and its rewards."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path

from mmsearch_jax.core.chat_endpoint import ChatEndpoint
from mmsearch_jax.core.settings import MissingFile, NotInstalled, Section, SettingError, setting
from mmsearch_jax.settings.policy import TRAINED_PARTS

TOY_WORLD = "miniworld"
"""The word that asks for the mini-world's own data where a setting names files of rows."""
PATCHES_PER_TOKEN = 4
"""Number of patches that the vision tower merges into one token (Qwen2.5-VL: 2 x 2)."""


def check_file(field: str, name: str) -> None:
    """Raises a `MissingFile` if the setting `field` names a missing file; addresses of buckets are not looked up."""
    if "://" not in name and not Path(name).exists():
        raise MissingFile(field, f"names {name}, which does not exist here: give the path of a file of rows", name)


@dataclasses.dataclass(frozen=True)
class BatchShape(Section):
    """Size of a global batch of packed sequences."""

    rows: int = setting(doc="rows of packed sequences", at_least=1)
    length: int = setting(doc="tokens per row", at_least=1)
    images: int = setting(
        0,
        "rows of patches, each with room for one image of the largest size or several small ones; 0: text only",
        at_least=0,
    )
    patches: int = setting(0, "patches per row of patches", at_least=0)

    def check(self) -> None:
        if self.patches % PATCHES_PER_TOKEN:
            near = -(-self.patches // PATCHES_PER_TOKEN) * PATCHES_PER_TOKEN
            raise SettingError(
                "patches",
                f"is {self.patches}, but {PATCHES_PER_TOKEN} patches make a token: set it to {near}, for example",
            )
        if self.images and not self.patches:
            raise SettingError(
                "patches", f"is 0, but there are {self.images} rows of patches: set it above 0, or set images to 0"
            )


@dataclasses.dataclass(frozen=True)
class OptimizerConfig(Section):
    """The optimiser, its learning rate by step, and clipping."""

    name: str = setting(
        "adamw", "adamw, or muon (kernels of layers by Muon, the rest by AdamW)", one_of=("adamw", "muon")
    )
    learning_rate: float = setting(1e-4, "peak, after a linear warm-up", at_least=0)
    warmup_steps: int = setting(0, "steps of the warm-up", at_least=0)
    decay: str = setting(
        "cosine",
        "after the warm-up: cosine to final_fraction at the last step, or constant",
        one_of=("cosine", "constant"),
    )
    final_fraction: float = setting(0.1, "final value of the cosine, as a share of the peak", at_least=0, at_most=1)
    weight_decay: float = setting(
        0.0, "for kernels, and with adamw for embeddings; norms and biases have none", at_least=0
    )
    b1: float = setting(0.9, "decay of AdamW's first moment", at_least=0, below=1)
    b2: float = setting(0.95, "decay of AdamW's second moment", at_least=0, below=1)
    max_grad_norm: float = setting(1.0, "global norm to which gradients are clipped", above=0)


@dataclasses.dataclass(frozen=True)
class RunConfig(Section):
    """Records of a training run: checkpoints, resuming, logs, traces."""

    checkpoint_every: int = setting(50, "steps between checkpoints; 0 writes only one at the end", at_least=0)
    keep: int = setting(2, "how many of the latest checkpoints to keep, in addition to the best", at_least=1)
    max_skipped: int = setting(
        5, "consecutive updates with a non-finite gradient that are skipped before the run stops", at_least=1
    )
    resume: bool = setting(True, "resume from the newest checkpoint in the work directory")
    wandb: str = setting("", "project of Weights & Biases to log to as well; empty: none")
    profile_steps: int = setting(0, "steps to trace into WORKDIR/profile for xprof; 0 traces none", at_least=0)
    profile_first: int = setting(3, "first step to trace, counted from this start; the first steps compile", at_least=1)

    def check_ready(self) -> None:
        if self.wandb and importlib.util.find_spec("wandb") is None:
            raise NotInstalled("wandb", f"is '{self.wandb}', but the package is not installed: pip install wandb")


@dataclasses.dataclass(frozen=True)
class SFTDataConfig(Section):
    """Conversations for SFT, and how they are read."""

    sets: tuple[str, ...] = setting(
        (),
        "ArrayRecord files of rows with conversations; the word miniworld names the scripted teacher's conversations in the "
        "mini-world's training half",
    )
    weights: tuple[float, ...] = setting((), "weight of each set in the mixture; none: all equal", above=0)
    lanes: int = setting(
        8,
        "a batch is packed in at least so many independent parts: the least multiple of the number of processes that divides "
        "the batch. A resumed run keeps its first number of parts, which its processes must divide",
        at_least=1,
    )
    num_workers: int = setting(
        8, "worker processes that read and tokenise; 0 reads in threads of this process", at_least=0
    )
    max_unusable: float = setting(
        0.5,
        "largest share of rows that are skipped because they cannot be used; they are logged in WORKDIR/set_aside, and above "
        "this share the run stops",
        at_least=0,
        at_most=1,
    )
    validation: tuple[str, ...] = setting(
        (), "ArrayRecord files whose loss is measured; the checkpoint of the lowest loss is kept"
    )
    validation_batches: int = setting(8, "number of validation batches", at_least=1)
    validate_every: int = setting(100, "steps between measurements; 0: only at the end", at_least=0)

    def check(self) -> None:
        if self.weights and len(self.weights) != len(self.sets):
            raise SettingError(
                "weights", f"has {len(self.weights)} values for {len(self.sets)} sets: give one for each"
            )

    def check_ready(self) -> None:
        if not self.sets:
            raise SettingError(
                "sets",
                "is empty: name ArrayRecord files of conversations (`mmsearch data convert` and `mmsearch datagen` make them), "
                f"or {TOY_WORLD} for the toy world",
            )
        for field in ("sets", "validation"):
            for name in getattr(self, field):
                if name != TOY_WORLD or field == "validation":
                    check_file(field, name)


@dataclasses.dataclass(frozen=True)
class SFTConfig(Section):
    """Supervised fine-tuning as in DeepMMSearch-R1 (sec. 3.1, 4.1): 10,000 conversations, 3 epochs, 8,192 tokens per row."""

    num_steps: int = setting(1250, "updates", at_least=1)
    batch: BatchShape = setting(BatchShape(8, 8192, 32, 5120), "size of a batch")
    freeze: tuple[str, ...] = setting(
        ("vision",), "top-level modules that are not trained (the paper freezes the vision tower)", one_of=TRAINED_PARTS
    )
    accumulate: int = setting(1, "batches per update", at_least=1)
    train_end: bool = setting(
        False,
        "also train the <|im_end|> after every turn, so that an exported policy stops where a program knows no stop "
        "strings; the recipes of published models set it",
    )
    data: SFTDataConfig = setting(SFTDataConfig(), "the conversations to train on")
    optimizer: OptimizerConfig = setting(
        OptimizerConfig(learning_rate=1e-4, warmup_steps=125, final_fraction=0.0, b2=0.999), "warm-up: 0.1 of the steps"
    )


@dataclasses.dataclass(frozen=True)
class GRPOLossConfig(Section):
    """The loss of GRPO and its relatives; `learners.losses` lists the values of the published methods."""

    clip_low: float = setting(0.2, "the ratio is clipped to [1 - clip_low, 1 + clip_high]", above=0, at_most=1)
    clip_high: float = setting(0.2, "see clip_low", above=0)
    kl_coef: float = setting(
        0.001, "weight of the KL to the reference policy; 0 skips the reference's forward passes", at_least=0
    )
    kl_estimator: str = setting(
        "k3",
        "Schulman, Approximating KL divergence, 2020. As a loss, k1 has no gradient in expectation and k2 has the true one; "
        "GRPO's k3 is between them",
        one_of=("k1", "k2", "k3"),
    )
    aggregation: str = setting(
        "sequence",
        "token: mean over all trained tokens; sequence: mean over each sequence's tokens, then over sequences; constant: sum "
        "over each sequence's tokens / constant_length, then mean over sequences",
        one_of=("token", "sequence", "constant"),
    )
    constant_length: int = setting(1024, "number of tokens by which the aggregation 'constant' divides", at_least=1)
    ratio: str = setting(
        "token",
        "ratio of the policy to the old one: per token, or one for the whole sequence (the geometric mean over its tokens)",
        one_of=("token", "sequence"),
    )
    importance_cap: float = setting(
        0.0,
        "0 compares the policy with the sampler's own log-probs. Above 0 it is compared with the learner's at the start of the "
        "batch, and each token has the weight min(learner's / sampler's probability, cap)",
        at_least=0,
    )
    dual_clip: float = setting(
        10.0,
        "clip_high does not bound the ratio if the advantage is negative: then this does (dual-clip PPO, "
        "arXiv 1912.09729); 0: unbounded",
        at_least=0,
    )

    def check(self) -> None:
        if 0 < self.dual_clip <= 1 + self.clip_high:
            raise SettingError(
                "dual_clip",
                f"is {self.dual_clip:g}, within the clip's own range: set it above {1 + self.clip_high:g}, or to 0",
            )


@dataclasses.dataclass(frozen=True)
class RewardConfig(Section):
    """R = (1 - l) s + l s_fmt (DeepMMSearch-R1, sec. 3.2), and options."""

    format_weight: float = setting(0.1, "l, the weight of a well-formed episode", at_least=0, at_most=1)
    search_penalty: float = setting(
        0.0, "share subtracted from s if any search was made (0.1 in MMSearch-R1)", at_least=0, at_most=1
    )
    match: str = setting(
        "exact_or_judge",
        "who decides s: exact (the answer match), judge (an LLM), or exact_or_judge (the judge is asked only if the match says "
        "no)",
        one_of=("exact", "judge", "exact_or_judge"),
    )
    overlong_buffer: int = setting(
        0,
        "last tokens before the limit, which cost increasingly more, up to 1 (DAPO, arXiv 2503.14476, eq. 13); 0: none",
        at_least=0,
    )


@dataclasses.dataclass(frozen=True)
class JudgeConfig(ChatEndpoint):
    """The LLM judge; none if `url` is empty."""

    key_env: str = setting("JUDGE_API_KEY", "environment variable with the endpoint's key, if it needs one")


@dataclasses.dataclass(frozen=True)
class GRPOConfig(Section):
    """GRPO with live search as in DeepMMSearch-R1 (sec. 3.2, 4.1): 20 epochs of 5,000 prompts, batch 512, mini-batch 64."""

    rows: str = setting(
        "",
        "file of prompts with gold answers (needs tools.url); the word miniworld names the mini-world's training half",
    )
    max_unusable: float = setting(
        0.5,
        "largest share of rows that no episode can play (an image that cannot be read or is too narrow, a prompt that does not "
        "fit, several images); they are passed over and logged in WORKDIR/set_aside, and above this share the run stops",
        at_least=0,
        at_most=1,
    )
    eval_every: int = setting(
        0,
        "steps between evaluations of the running policy on held-out rows, with one before the first step and one after the "
        "last; the best checkpoint by their accuracy is kept and becomes policies/best. 0: none",
        at_least=0,
    )
    eval_rows: str = setting(
        "", "file of held-out rows with gold answers; empty: some of the prompts, which are then not trained on"
    )
    eval_num_rows: int = setting(64, "held-out rows that are played; the seed chooses them", at_least=1)
    eval_temperature: float = setting(0.0, "sampling temperature on held-out rows; 0: greedy", at_least=0)
    num_steps: int = setting(1560, "rollout batches", at_least=1)
    prompts_per_step: int = setting(64, "prompts per step, over all processes", at_least=1)
    group_size: int = setting(8, "trajectories per prompt", at_least=1)
    oversample: int = setting(
        0,
        "additional trajectories per group; once group_size have ended, the rest are cut off. The first to end are kept, which "
        "favours short trajectories",
        at_least=0,
    )
    sampling_rounds: int = setting(
        1,
        "with more than 1, prompts whose groups are uniform or too small are replaced by the next ones, in at most this many "
        "rounds (DAPO's dynamic sampling, arXiv 2503.14476)",
        at_least=1,
    )
    updates_per_batch: int = setting(8, "mini-batches per rollout batch; each makes an update", at_least=1)
    epochs: int = setting(1, "passes over each rollout batch", at_least=1)
    overlap: bool = setting(
        False,
        "roll out the next batch during the update of this one: its policy is one update behind, which the ratios correct. The "
        "first batch after a resume is rolled out by the saved policy: its numbers differ from those of an uninterrupted run",
    )
    temperature: float = setting(
        1.0,
        "sampling temperature, also of the log-probs in the loss: the loss optimises the policy as it is sampled",
        above=0,
    )
    normalise_std: bool = setting(
        False, "divide advantages by the group's standard deviation (GRPO does, DeepMMSearch-R1 does not)"
    )
    min_group: int = setting(2, "groups with fewer scored trajectories are dropped and counted", at_least=1)
    skip_uniform: bool = setting(True, "drop groups whose rewards are all equal: only their KL has a gradient")
    save_groups: int = setting(1, "groups whose trajectories are written to rollouts/ at each step", at_least=0)
    freeze: tuple[str, ...] = setting(("vision",), "top-level modules that are not trained", one_of=TRAINED_PARTS)
    batch: BatchShape = setting(BatchShape(8, 12288, 16, 5120), "size of a learner's batch, over all processes")
    halvings: int = setting(
        2,
        "times that a batch's length and images may be halved for what is left over after full batches; each is one more "
        "compiled program",
        at_least=0,
    )
    loss: GRPOLossConfig = setting(GRPOLossConfig(), "the loss")
    reward: RewardConfig = setting(RewardConfig(), "the reward")
    judge: JudgeConfig = setting(JudgeConfig(), "asked for verdicts if reward.match is judge or exact_or_judge")
    optimizer: OptimizerConfig = setting(
        OptimizerConfig(learning_rate=2e-6, warmup_steps=45, decay="constant", b2=0.999), "constant after the warm-up"
    )

    def check(self) -> None:
        if self.group_size < self.min_group:
            raise SettingError(
                "group_size", f"is {self.group_size}, below min_group ({self.min_group}): no group would be trained on"
            )
        if self.eval_rows and not self.eval_every:
            raise SettingError(
                "eval_rows", "names held-out rows, but eval_every is 0: set the steps between evaluations"
            )

    def prompts_of_process(self, num_processes: int) -> int:
        """Prompts per step of each process.

        Raises:
          SettingError: the processes do not divide them.
        """
        if self.prompts_per_step % num_processes:
            raise SettingError(
                "grpo.prompts_per_step",
                f"is {self.prompts_per_step}, which {num_processes} processes do not divide evenly: change it",
            )
        return self.prompts_per_step // num_processes

    def check_ready(self) -> None:
        if self.reward.match != "exact" and not self.judge.url:
            raise SettingError(
                "judge.url",
                f"is empty, but reward.match is '{self.reward.match}': name the judge's endpoint, or set match to exact",
            )
