"""Turns the shapes in types into checks while tests run: jaxtyping's import hook, with beartype."""

from jaxtyping import install_import_hook

CHECKED = (
    "mmsearch_jax.images.pixels",
    "mmsearch_jax.images.processing",
    "mmsearch_jax.images.vision_inputs",
    "mmsearch_jax.learners.advantages",
    "mmsearch_jax.learners.logprobs",
    "mmsearch_jax.learners.losses",
    "mmsearch_jax.models.attention",
    "mmsearch_jax.models.attention_cpu",
    "mmsearch_jax.models.attention_tpu",
    "mmsearch_jax.models.language",
    "mmsearch_jax.models.layers",
    "mmsearch_jax.models.lora",
    "mmsearch_jax.models.mrope",
    "mmsearch_jax.models.qwen2_5_vl",
    "mmsearch_jax.models.vision",
    "mmsearch_jax.rollout.jitted",
    "mmsearch_jax.rollout.programs",
    "mmsearch_jax.rollout.sampling",
)
"""Without modules of pytrees (`KVCache`, `TrainState`), which JAX also builds from shardings and abstract leaves."""


def install() -> None:
    """Installs the hook; must run before any of the modules is imported."""
    install_import_hook(CHECKED, "beartype.beartype")
