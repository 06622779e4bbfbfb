"""Settings of the policy's adapters and of its mesh."""

from __future__ import annotations

import dataclasses

from mmsearch_jax.core.settings import Section, SettingError, setting

IN_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
IN_MLP = ("gate_proj", "up_proj", "down_proj")
COMPUTE_DTYPES = ("bfloat16", "float32")
REMAT = ("none", "dots", "full")
MESH_AXES = ("dcn", "data", "fsdp", "tensor", "sequence")
"""The axes of the device mesh, outermost first."""
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


@dataclasses.dataclass(frozen=True)
class ShardingConfig(Section):
    """Mesh axes over which each logical axis of the parameters is split, in order; () keeps it whole.

    fsdp splits the width of the model; tensor splits dims on which chips can work independently.
    """

    layers: tuple[str, ...] = setting((), "the stacked layers", one_of=MESH_AXES)
    embed: tuple[str, ...] = setting(("fsdp",), "width of the language model", one_of=MESH_AXES)
    heads: tuple[str, ...] = setting(("tensor",), "attention heads of the language model", one_of=MESH_AXES)
    mlp: tuple[str, ...] = setting(("tensor",), "width of the language model's MLPs", one_of=MESH_AXES)
    vocab: tuple[str, ...] = setting(
        ("tensor",), "vocabulary; whole if the axes do not divide its size", one_of=MESH_AXES
    )
    vision_embed: tuple[str, ...] = setting(("fsdp",), "width of the vision tower", one_of=MESH_AXES)
    vision_heads: tuple[str, ...] = setting(("tensor",), "attention heads of the vision tower", one_of=MESH_AXES)
    vision_mlp: tuple[str, ...] = setting(
        ("tensor",), "width of the vision tower's MLPs; whole if the axes do not divide its size", one_of=MESH_AXES
    )
    patch: tuple[str, ...] = setting((), "numbers of a patch of pixels", one_of=MESH_AXES)
    norm: tuple[str, ...] = setting((), "scales of the norms, and biases of the model's width", one_of=MESH_AXES)
    rank: tuple[str, ...] = setting((), "rank of LoRA's updates", one_of=MESH_AXES)

    def check(self) -> None:
        for field in dataclasses.fields(self):
            axes = getattr(self, field.name)
            if len(set(axes)) < len(axes):
                raise SettingError(field.name, f"is {axes}: name each mesh axis once")
