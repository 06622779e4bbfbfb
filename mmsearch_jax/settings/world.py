"""Settings of the embedded mini-world (built in the work directory if missing) and of the pretraining of its tiny base."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from mmsearch_jax.core.settings import Section, SettingError, setting
from mmsearch_jax.settings.learning import BatchShape, OptimizerConfig


@dataclasses.dataclass(frozen=True)
class WorldConfig(Section):
    """Sizes of the mini-world."""

    num_lands: int = setting(160, "generated lands that SFT asks about", at_least=4)
    num_grpo_lands: int = setting(100, "additional generated lands, which only GRPO asks about", at_least=1)
    num_sft_rows: int = setting(900, "questions that the scripted teacher answers", at_least=1)
    num_grpo_rows: int = setting(432, "prompts of GRPO", at_least=1)
    num_eval_rows: int = setting(300, "questions about the real half", at_least=1)
    grpo_free_share: float = setting(
        0.2,
        "share of GRPO's prompts that need no search; below half, because the policy answers them without search and their "
        "groups have equal rewards, which give no gradient",
        at_least=0,
        at_most=1,
    )


@dataclasses.dataclass(frozen=True)
class MixtureConfig(Section):
    """Relative weights of the lessons in one part of pretraining."""

    echo: float = setting(0.0, "random tokens to repeat", at_least=0)
    reading: float = setting(0.0, "answers that a text contains", at_least=0)
    joining: float = setting(0.0, "answers from two texts", at_least=0)
    copying: float = setting(0.0, "names and values to copy", at_least=0)
    chain: float = setting(0.0, "long chains of reading, as needed with the tools", at_least=0)
    describing: float = setting(0.0, "places of pictures, and directly behind them what is there", at_least=0)
    placing: float = setting(0.0, "one of several pictures by its place, or the place of one", at_least=0)
    looking: float = setting(0.0, "all questions about composed pictures", at_least=0)

    def check(self) -> None:
        if not any(getattr(self, field.name) for field in dataclasses.fields(self)):
            raise SettingError("looking", "is 0, and so are all other weights: give at least one lesson a weight")


@dataclasses.dataclass(frozen=True)
class PartConfig(Section):
    """A part of pretraining: steps with one mixture of lessons."""

    steps: int = setting(doc="updates", at_least=1)
    mixture: MixtureConfig = setting(MixtureConfig(echo=1.0), "lessons and their weights")


@dataclasses.dataclass(frozen=True)
class CourseConfig(Section):
    """Parts, in the order of their names, under one learning-rate schedule."""

    parts: Mapping[str, PartConfig] = setting({}, "parts of the course by name")
    optimizer: OptimizerConfig = setting(
        OptimizerConfig(learning_rate=4e-3, warmup_steps=50, final_fraction=0.02, weight_decay=0.01, b2=0.98),
        "optimiser of the course",
    )
    batch: BatchShape = setting(
        BatchShape(12, 512, 18, 192), "size of a batch; each row of patches holds one scene of 16 x 12 patches"
    )


@dataclasses.dataclass(frozen=True)
class TinyTextConfig(Section):
    """Sizes of the tiny base's language model (`models.config.TextConfig` explains them)."""

    vocab_size: int = setting(704, "maximum number of tokens in the vocabulary", at_least=300)
    hidden_size: int = setting(192, "model width", at_least=1)
    intermediate_size: int = setting(512, "width of the MLP", at_least=1)
    num_hidden_layers: int = setting(4, "layers", at_least=1)
    num_attention_heads: int = setting(6, "query heads", at_least=1)
    num_key_value_heads: int = setting(2, "key/value heads", at_least=1)
    mrope_section: tuple[int, int, int] = setting(
        (4, 6, 6), "parts of half a head's width for time, height, width", at_least=1
    )
    rope_theta: float = setting(10000.0, "base of the rotary frequencies", above=0)
    tie_word_embeddings: bool = setting(True, "one matrix for embedding and output")
    max_position_embeddings: int = setting(4096, "longest sequence in the checkpoint's config", at_least=1)


@dataclasses.dataclass(frozen=True)
class TinyVisionConfig(Section):
    """Sizes of the tiny base's vision tower (`models.config.VisionConfig` explains them)."""

    depth: int = setting(4, "blocks", at_least=1)
    hidden_size: int = setting(128, "width", at_least=1)
    intermediate_size: int = setting(256, "width of the MLP", at_least=1)
    num_heads: int = setting(4, "attention heads", at_least=1)
    out_hidden_size: int = setting(192, "width of the features: the language model's", at_least=1)
    fullatt_block_indexes: tuple[int, ...] = setting((1, 3), "blocks without windows", at_least=0)


@dataclasses.dataclass(frozen=True)
class TowerConfig(Section):
    """The first stage of pretraining: the vision tower alone, with heads that are thrown away."""

    steps: int = setting(1900, "updates", at_least=1)
    batch: int = setting(16, "scenes in an update", at_least=1)
    optimizer: OptimizerConfig = setting(
        OptimizerConfig(learning_rate=2e-3, warmup_steps=60, final_fraction=0.02, weight_decay=0.02, b2=0.98),
        "optimiser of the stage",
    )


def _courses() -> dict[str, CourseConfig]:
    # Picking one picture by its place, and copying, appear only in lessons that need nothing else; mixed they may never appear.
    # Descriptions come first: what is at a place stands directly behind its words. Both skills stay if later parts use them.
    skills = {
        "part_1": PartConfig(250, MixtureConfig(describing=1.0)),
        "part_2": PartConfig(250, MixtureConfig(describing=0.3, placing=0.7)),
        "part_3": PartConfig(200, MixtureConfig(echo=0.7, describing=0.1, placing=0.2)),
    }
    reading = {
        "part_1": PartConfig(650, MixtureConfig(echo=0.25, reading=0.25, joining=0.05, copying=0.25, looking=0.2)),
        "part_2": PartConfig(
            1450, MixtureConfig(echo=0.1, reading=0.15, joining=0.05, copying=0.15, chain=0.25, looking=0.3)
        ),
    }
    optimizer = OptimizerConfig("muon", learning_rate=4e-3, warmup_steps=30, weight_decay=0.01, b2=0.98)
    constant = dataclasses.replace(optimizer, decay="constant")
    return {
        "course_1": CourseConfig(skills, constant, BatchShape(6, 512, 40, 192)),
        "course_2": CourseConfig(reading, dataclasses.replace(optimizer, final_fraction=0.02)),
    }


@dataclasses.dataclass(frozen=True)
class PretrainSettings(Section):
    """`mmsearch pretrain`: the tiny base from random parameters."""

    seed: int = setting(0, "seed of all random numbers", at_least=0)
    out: str = setting("runs/pretrain/base", "folder of the base")
    text: TinyTextConfig = setting(TinyTextConfig(), "the language model")
    vision: TinyVisionConfig = setting(TinyVisionConfig(), "the vision tower")
    max_pixels: int = setting(
        224 * 168,
        "area of an image in pixels: scenes of 448 x 336 become 224 x 168, which are 16 x 12 patches and 48 tokens",
        at_least=56 * 56,
    )
    tower: TowerConfig = setting(TowerConfig(), "the vision tower's own lessons, before the courses")
    courses: Mapping[str, CourseConfig] = setting(_courses(), "in the order of their names")
    checkpoint_every: int = setting(200, "steps between checkpoints", at_least=0)
    num_scenes: int = setting(5000, "composed pictures to train on", at_least=1)
    world_size: int = setting(400, "lands of the world that the pictures show", at_least=1)

    def check(self) -> None:
        if self.vision.out_hidden_size != self.text.hidden_size:
            raise SettingError(
                "vision.out_hidden_size",
                f"is {self.vision.out_hidden_size}, must be text.hidden_size ({self.text.hidden_size}): set both",
            )
        for part, heads, width in (
            ("text", self.text.num_attention_heads, self.text.hidden_size),
            ("vision", self.vision.num_heads, self.vision.hidden_size),
        ):
            if width % heads:
                raise SettingError(f"{part}.hidden_size", f"is {width}, which {heads} heads do not divide: change one")
        heads, shared = self.text.num_attention_heads, self.text.num_key_value_heads
        if heads % shared:
            raise SettingError(
                "text.num_attention_heads", f"is {heads}: make it a multiple of num_key_value_heads ({shared})"
            )
        half = self.text.hidden_size // heads // 2
        if sum(self.text.mrope_section) != half:
            raise SettingError(
                "text.mrope_section", f"is {self.text.mrope_section}: its sum must be half a head's width, {half}"
            )
        for name, course in self.courses.items():
            if not course.parts:
                raise SettingError(f"courses.{name}.parts", "is empty: give at least one part")
