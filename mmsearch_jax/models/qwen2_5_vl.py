"""Qwen2.5-VL: the policy. One definition serves the sampler (with a KV cache) and the learner (full forward).

It works only on arrays: `data/` handles tokenizers, image files and chat markup. The architecture is that of
transformers' `Qwen2_5_VLForConditionalGeneration`, against which tests compare it.
Legend: B batch, L sequence, S slots, T new tokens, N image tokens, D width, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Float32, Int

from mmsearch_jax.core.errors import ConfigError
from mmsearch_jax.images.vision_inputs import VisionInputs
from mmsearch_jax.models.config import ModelConfig
from mmsearch_jax.models.kv_cache import KVCache
from mmsearch_jax.models.language import LanguageModel
from mmsearch_jax.models.layers import REMAT_POLICIES, layer_at
from mmsearch_jax.models.vision import VisionTower


class Qwen2_5_VL(nnx.Module):
    """The whole model.

    Args:
      dtype: of the computation (norms, softmax, RoPE angles and logits are always float32).
      param_dtype: of the stored parameters.
    """

    def __init__(
        self, config: ModelConfig, *, rngs: nnx.Rngs, dtype: Any = jnp.float32, param_dtype: Any = jnp.float32
    ):
        dtypes = {"dtype": dtype, "param_dtype": param_dtype}
        self.vision = VisionTower(config.vision, rngs=rngs, **dtypes)
        self.language = LanguageModel(config.text, rngs=rngs, **dtypes)
        self.config, self.dtype = config, dtype

    def set_remat(self, name: str) -> None:
        """Sets what the backward pass recomputes: "none", "dots" or "full" (see `layers.REMAT_POLICIES`).

        Raises:
          ConfigError: unknown name.
        """
        if name not in REMAT_POLICIES:
            raise ConfigError(f"unknown remat '{name}': known are {', '.join(REMAT_POLICIES)}")
        self.vision.remat = self.language.remat = name

    def with_single_layers(self) -> Qwen2_5_VL:
        """The same model with the decoder's layers in a list instead of a stack; only `extend` can use it.

        A decode step reads every layer once. If the layers are stacked, XLA for CPUs copies each layer before it reads it.
        """
        model = nnx.merge(*nnx.split(self))
        model.language.layers = nnx.List(
            [layer_at(model.language.layers, i) for i in range(self.config.text.num_hidden_layers)]
        )
        return model

    def encode_images(self, vision: VisionInputs) -> Float[Array, "N D"]:
        """Features [N, D] of the merged patches, in the order of `pack_images`."""
        return self.vision(vision)

    def embed(
        self,
        token_ids_BL: Int[Array, "B L"],
        features_ND: Float[Array, "N D"] | None,
        feature_index_BL: Int[Array, "B L"] | None,
    ) -> Float[Array, "B L D"]:
        """Embeds tokens; where `feature_index` is not -1, the image feature with that index replaces the embedding."""
        embedded = self.language.embed(token_ids_BL)
        if features_ND is None or feature_index_BL is None:
            return embedded
        # Cast, gather and select: scattering float32 features into bf16 embeddings fails on some TPUs.
        gathered = features_ND.astype(embedded.dtype)[jnp.maximum(feature_index_BL, 0)]
        return jnp.where(feature_index_BL[..., None] >= 0, gathered, embedded)

    def __call__(
        self,
        token_ids_BL: Int[Array, "B L"],
        positions_3BL: Int[Array, "3 B L"],
        segment_ids_BL: Int[Array, "B L"],
        features_ND: Float[Array, "N D"] | None = None,
        feature_index_BL: Int[Array, "B L"] | None = None,
    ) -> Float[Array, "B L D"]:
        """Final hidden states [B, L, D]; attention is causal within segments, and segment 0 is padding."""
        x_BLD = self.embed(token_ids_BL, features_ND, feature_index_BL)
        return self.language(x_BLD, positions_3BL, segment_ids_BL)

    def extend(
        self,
        cache: KVCache,
        token_ids_ST: Int[Array, "S T"],
        positions_3ST: Int[Array, "3 S T"],
        num_new_S: Int[Array, "S"],
        features_ND: Float[Array, "N D"] | None = None,
        feature_index_ST: Int[Array, "S T"] | None = None,
    ) -> tuple[Float[Array, "S T D"], KVCache]:
        """Feeds up to T new tokens per slot that follow the cached ones (a decode step has T = 1).

        Returns:
          Final hidden states [S, T, D] (without meaning at or behind `num_new`), and the updated cache.
        """
        x_STD = self.embed(token_ids_ST, features_ND, feature_index_ST)
        return self.language.extend(cache, x_STD, positions_3ST, num_new_S)

    def logits(self, hidden: Float[Array, "*batch D"]) -> Float32[Array, "*batch V"]:
        """[..., D] -> [..., V] float32."""
        return self.language.logits(hidden)
