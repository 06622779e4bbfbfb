"""Settings of the policy's adapters and of its mesh."""

from __future__ import annotations

import dataclasses

from mmsearch_jax.core.settings import Section, SettingError, setting

IN_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
IN_MLP = ("gate_proj", "up_proj", "down_proj")
COMPUTE_DTYPES = ("bfloat16", "float32")
REMAT = ("none", "dots", "full")
TRAINED_PARTS = ("vision", "language")
"""Top-level modules of a policy that training can freeze."""


@dataclasses.dataclass(frozen=True)
class LoRAConfig(Section):
    """Low-rank updates of the language model's linear modules (arXiv 2106.09685; names and scale are PEFT's)."""

    rank: int = setting(8, "rank of the update; 0 trains all parameters", at_least=0)
    alpha: float = setting(16.0, "the update is scaled by alpha / rank (the paper does not state it)", above=0)
    targets: tuple[str, ...] = setting(
        (*IN_ATTENTION, *IN_MLP),
        "linear modules of a language-model layer that get an update",
        one_of=(*IN_ATTENTION, *IN_MLP),
    )
    dropout: float = setting(
        0.0, "share of the update's inputs that SFT drops at random; GRPO drops none", at_least=0, below=1
    )

    merge_dtype: str = setting(
        "stored",
        "dtype of the trained kernels in policies/<stage>: stored (the base's; bfloat16 rounds them by up to half of a small "
        "update) or float32. The adapter beside them is always float32",
        one_of=("stored", "float32"),
        kw_only=True,
    )

    def check(self) -> None:
        if not self.targets:
            raise SettingError("targets", f"is empty: name at least one of {', '.join((*IN_ATTENTION, *IN_MLP))}")


@dataclasses.dataclass(frozen=True)
class MeshConfig(Section):
    """Size of each mesh axis over all devices of all processes; one of them may be -1: all devices that the others leave."""

    data: int = setting(1, "replicas of the weights within a slice", at_least=-1)
    fsdp: int = setting(-1, "weights and batch are split over this axis", at_least=-1)
    tensor: int = setting(1, "heads, MLP and vocabulary are split over this axis", at_least=-1)
    sequence: int = setting(1, "the tokens of a row are split over this axis", at_least=-1)
    dcn: int = setting(1, "number of slices, each with a replica of the weights", at_least=1, kw_only=True)

    def check(self) -> None:
        sizes = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for name, size in sizes.items():
            if size == 0:
                raise SettingError(
                    name, "is 0: sizes are at least 1, and one of them may be -1 (all remaining devices)"
                )
        if (left := [name for name, size in sizes.items() if size == -1])[1:]:
            raise SettingError(left[1], f"is -1, and so is {left[0]}: only one axis can take the remaining devices")
