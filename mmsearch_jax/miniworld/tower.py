"""Teaches the tiny base's vision tower to see, before there is a language model: heads on every token, which are thrown away.

A tower that learns only through a language model's few answers learns next to nothing in the time that a laptop has. Here
every token of a scene has labels (`dense_labels`), and linear heads on the tower's features predict them.
Legend: N scenes, T tokens of a scene, D width of the features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from mmsearch_jax.images import pixels
from mmsearch_jax.images.processing import ProcessedImage
from mmsearch_jax.images.vision_inputs import VisionInputs, pack_images
from mmsearch_jax.learners.train_state import (
    JittedUpdate,
    TrainState,
    apply_gradients,
    create_train_state,
    make_optimizer,
    split_model,
)
from mmsearch_jax.learners.training_run import RunPlace, TrainingRun
from mmsearch_jax.miniworld import colours, dense_labels, distortions
from mmsearch_jax.miniworld.dense_labels import DenseLabels, Pixels
from mmsearch_jax.miniworld.initial import EMBEDDING_STD
from mmsearch_jax.models.config import VisionConfig
from mmsearch_jax.models.vision import VisionTower
from mmsearch_jax.settings.world import TowerConfig

FEATURE_STD = 2 * EMBEDDING_STD
"""Deviation to which features are scaled. A feature says more than a word does: it may be somewhat longer, not much."""

# Outputs of each head, and its weight in the loss.
_HEADS = {
    "shares": (len(colours.NAMES), 1.0),
    "kind": (len(dense_labels.KINDS), 1.0),
    "colour": (len(colours.NAMES), 1.0),
    "place": (len(dense_labels.PLACES), 1.0),
    "edges": (4, 3.0),
    "centre": (2, 3.0),
    "num_pictures": (4, 0.7),
    "num_flags": (5, 0.7),
}


class TowerWithHeads(nnx.Module):
    """The tower, and a linear layer that predicts all labels of a token from its feature."""

    def __init__(self, tower: VisionTower, width: int, *, rngs: nnx.Rngs):
        self.tower = tower
        self.heads = nnx.Linear(width, sum(size for size, _ in _HEADS.values()), rngs=rngs)

    def __call__(self, vision: VisionInputs, order_NT: Int[Array, "N T"]) -> dict[str, Float[Array, "N T outputs"]]:
        """The outputs of each head by name; `order` holds the indices of each scene's features."""
        outputs = self.heads(self.tower(vision))[order_NT]
        ends = np.cumsum([size for size, _ in _HEADS.values()])[:-1]
        return dict(zip(_HEADS, jnp.split(outputs, ends, axis=-1), strict=True))


def dense_loss(
    outputs: Mapping[str, Float[Array | np.ndarray, "N T outputs"]], labels: DenseLabels
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The weighted sum of the heads' losses, and each of them: cross-entropies in nats, mean absolute errors of boxes.

    `labels` are those of N scenes, stacked.
    """
    everywhere = jnp.ones_like(labels.inside)
    losses = {
        "shares": -_mean((labels.shares * jax.nn.log_softmax(outputs["shares"])).sum(-1), everywhere),
        "edges": _mean(jnp.abs(outputs["edges"] - labels.edges).mean(-1), labels.inside),
        "centre": _mean(jnp.abs(outputs["centre"] - labels.centre).mean(-1), labels.inside),
    }
    where = {"kind": everywhere, "colour": labels.has_colour, "place": labels.inside}
    for name in ("kind", "colour", "place", "num_pictures", "num_flags"):
        logprobs = jax.nn.log_softmax(outputs[name])
        right = jnp.take_along_axis(logprobs, getattr(labels, name)[..., None], -1)[..., 0]
        losses[name] = -_mean(right, where.get(name, everywhere))
    return sum((_HEADS[name][1] * loss for name, loss in losses.items()), jnp.zeros(())), losses


def _mean(values: Float[Array, "N T"], weights: Float[Array | np.ndarray, "N T"]) -> Float[Array, ""]:
    return (values * weights).sum() / jnp.maximum(weights.sum(), 1.0)


def train_tower(
    tower: VisionTower, config: VisionConfig, scenes: Sequence[Pixels], course: TowerConfig, place: RunPlace, seed: int
) -> VisionTower:
    """The tower, trained on scenes of one size, with features centred and scaled to `FEATURE_STD`."""
    model = TowerWithHeads(tower, config.out_hidden_size, rngs=nnx.Rngs(seed))
    graph, trained, frozen = split_model(model)
    optimizer = make_optimizer(course.optimizer, course.steps)

    def loss(params: Any, frozen: Any, vision: VisionInputs, order: Any, labels: DenseLabels) -> Any:
        return dense_loss(nnx.merge(graph, frozen, params)(vision, order), labels)

    def tower_update(state: TrainState, *batch: Any) -> tuple[TrainState, dict[str, jax.Array]]:
        (value, parts), found = jax.value_and_grad(loss, has_aux=True)(state.params, state.frozen, *batch)
        state, more = apply_gradients(state, found, optimizer)
        return state, {"loss": value, **{f"loss_{name}": part for name, part in parts.items()}, **more}

    # On a named device, as after an update: otherwise the second update would compile again.
    state = jax.device_put(create_train_state(trained, frozen, optimizer), jax.devices()[0])
    update = JittedUpdate(tower_update)
    with TrainingRun(place, course.steps) as run:
        state, start, _ = run.begin(state)
        for step in range(start + 1, course.steps + 1):
            # Each step has its own generator, so that a resumed run goes on with the same scenes.
            batch = _batch(np.random.default_rng([seed, step]), scenes, course.batch, config)
            state, metrics = update(state, *jax.device_put(batch))
            shown = ("loss", "loss_kind", "loss_colour", "loss_place")
            run.finish_step(step, state, jax.device_get(metrics), lambda: None, shown)
    tower = nnx.merge(graph, state.frozen, state.params).tower
    return centred(tower, *inputs(scenes[:64], config))


def centred(tower: VisionTower, vision: VisionInputs, order: Int[np.ndarray, "N T"]) -> VisionTower:
    """The tower with its last layer changed so that these images' features have mean 0 and deviation `FEATURE_STD`.

    Features that are much longer than text embeddings hardly change in the language model's layers, whereas text changes by
    their length: the model then learns neither to look nor to read. `order` holds the indices of the images' features.
    """
    features = features_of(tower, vision, order)
    mean = features.mean((0, 1))
    scale = FEATURE_STD / (features - mean).std()
    graph, state = nnx.split(tower)
    tower = nnx.merge(graph, jax.tree.map(jnp.copy, state))
    last = tower.merger.fc2
    last.kernel[...] = last.kernel[...] * scale
    assert last.bias is not None
    last.bias[...] = (last.bias[...] - mean) * scale
    return tower


def features_of(tower: VisionTower, vision: VisionInputs, order: Int[np.ndarray, "N T"]) -> Float[np.ndarray, "N T D"]:
    """The features of the images' tokens; `order` holds their indices."""
    graph, state = nnx.split(tower)
    return np.asarray(jax.jit(lambda state, vision: nnx.merge(graph, state)(vision))(state, vision))[order]


def inputs(scenes: Sequence[Pixels], config: VisionConfig) -> tuple[VisionInputs, Int[np.ndarray, "N T"]]:
    """The tower's inputs for scenes of one size, and the indices of each scene's features."""
    images = [ProcessedImage(*_patches(scene.image, config)) for scene in scenes]
    vision, order = pack_images(images, layout=config.layout)
    return vision, np.stack(order)


def _batch(
    rng: np.random.Generator, scenes: Sequence[Pixels], size: int, config: VisionConfig
) -> tuple[VisionInputs, Int[np.ndarray, "N T"], DenseLabels]:
    """Distorted scenes: see `inputs`, and their labels."""
    chosen = [distortions.distort(rng, scenes[int(i)]) for i in rng.integers(len(scenes), size=size)]
    token = config.patch_size * config.spatial_merge_size
    labels = [dense_labels.label(scene, token) for scene in chosen]
    return *inputs(chosen, config), DenseLabels(*(np.stack(parts) for parts in zip(*labels, strict=True)))


def _patches(image: np.ndarray, config: VisionConfig) -> tuple[np.ndarray, tuple[int, int, int]]:
    grid = (1, image.shape[0] // config.patch_size, image.shape[1] // config.patch_size)
    return pixels.cut(image, config.patch_size, config.spatial_merge_size), grid
