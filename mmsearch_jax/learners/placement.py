"""Where the learner's arrays live: parameters, optimiser state and batches over one mesh of all devices of all processes.

A mesh of one device is no special case: the same code runs on a laptop and on a pod. It works on train states and token batches
and does not depend on the method.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mmsearch_jax.data.batches import TokenBatch
from mmsearch_jax.distributed.layout import BATCH_AXES, check_batch
from mmsearch_jax.distributed.mesh import make_mesh
from mmsearch_jax.distributed.sharding import RULES, Rules, rules_of
from mmsearch_jax.learners.train_state import TrainState, create_train_state
from mmsearch_jax.models.axes import Placement, placement, shard_state, spread
from mmsearch_jax.settings.learning import BatchShape
from mmsearch_jax.settings.policy import MeshConfig, ShardingConfig


@dataclasses.dataclass(frozen=True)
class OnMesh:
    """A jitted function that is called, or lowered for inspection, with the mesh as context."""

    function: Any
    mesh: Mesh

    def __call__(self, *arguments: Any) -> Any:
        with jax.set_mesh(self.mesh):
            return self.function(*arguments)

    def lower(self, *arguments: Any) -> Any:
        """Lowers the function like `jax.jit(...).lower`, from arrays or from shapes with shardings."""
        with jax.set_mesh(self.mesh):
            return self.function.lower(*arguments)


@dataclasses.dataclass(frozen=True)
class LearnerMesh:
    """A mesh with the rules that assign shardings to arrays."""

    mesh: Mesh
    rules: Rules = dataclasses.field(default_factory=lambda: RULES)

    @classmethod
    def of(
        cls,
        config: MeshConfig,
        rules: ShardingConfig | None = None,
        devices: Sequence[Any] | None = None,
        *,
        whole_rows: bool = True,
    ) -> LearnerMesh:
        """A mesh over all devices of all processes, or over the given ones.

        Args:
          rules: mesh axes of each logical axis of the parameters; by default those of `ShardingConfig`.
          whole_rows: each row of a batch must belong to one process, as `batch` needs; `whole_batch` does not.

        Raises:
          ConfigError: the sizes do not make up the number of devices.
        """
        return cls(make_mesh(config, devices, whole_rows=whole_rows), rules_of(rules) if rules else RULES)

    @property
    def row_parts(self) -> int:
        """Number of parts into which the rows of a batch are split."""
        return math.prod(self.mesh.shape[axis] for axis in BATCH_AXES)

    @property
    def token_parts(self) -> int:
        """Number of parts into which the tokens of a row are split."""
        return self.mesh.shape["sequence"]

    @property
    def parameters(self) -> Placement:
        """The sharding of each parameter, for `models.hf`."""
        return placement(self.mesh, self.rules)

    def check(self, shape: BatchShape, name: str) -> None:
        """Checks that a global batch can be split over the mesh.

        Raises:
          ConfigError: it cannot; `name` is the batch's key in the config.
        """
        check_batch(shape, name, self.mesh.shape)

    def train_state(self, trained: Any, frozen: Any, optimizer: Any) -> TrainState:
        """A fresh train state on the mesh; each moment of the optimiser has the sharding of its parameter."""
        return self.on_mesh(create_train_state(self.place(trained), self.place(frozen), optimizer))

    def abstract_train_state(self, trained: Any, frozen: Any, optimizer: Any) -> TrainState:
        """`train_state` for abstract parameters: shapes with the shardings that the arrays will have."""
        params = self.place(trained)
        state = jax.eval_shape(
            lambda params, frozen: create_train_state(params, frozen, optimizer), params, self.place(frozen)
        )
        moments = optax.tree_map_params(
            optimizer, lambda leaf, like: spread(leaf, like.sharding), state.opt_state, params
        )
        return self.on_mesh(dataclasses.replace(state, params=params, frozen=self.place(frozen), opt_state=moments))

    def place(self, state: Any) -> Any:
        """An `nnx` state with every parameter placed by the rules."""
        return shard_state(state, self.mesh, self.rules)

    def on_mesh(self, tree: Any) -> Any:
        """The tree, with every array that is not on the mesh yet (such as counters) replicated on each of its devices."""
        whole = NamedSharding(self.mesh, PartitionSpec())

        def place(leaf: jax.Array) -> jax.Array:
            there = isinstance(leaf.sharding, NamedSharding) and leaf.sharding.mesh == self.mesh
            return leaf if there else spread(leaf, whole)

        return jax.tree.map(place, tree)

    def batch(self, own: TokenBatch) -> TokenBatch:
        """The global batch on the mesh; `own` holds this process's rows of tokens and images."""
        index = own.feature_index
        if own.vision is not None and jax.process_count() > 1:
            # Features are numbered across the images of all processes. A merged token covers 2 x 2 patches.
            before = jax.process_index() * own.vision.patches.shape[0] * own.vision.patches.shape[1] // 4
            index = np.where(index >= 0, index + before, -1).astype(np.int32)
        shardings = self._batch_shardings(own)
        return jax.tree.map(
            lambda values, sharding: jax.make_array_from_process_local_data(sharding, np.asarray(values)),
            own._replace(feature_index=index),
            shardings,
        )

    def whole_batch(self, batch: TokenBatch) -> TokenBatch:
        """The global batch on the mesh; every process holds all of it (host arrays) and places what its devices need.

        Unlike those of `batch`, its rows may be split over several processes.
        """

        def place(values: np.ndarray, sharding: NamedSharding) -> jax.Array:
            parts = sharding.addressable_devices_indices_map(values.shape)
            own = [jax.device_put(values[part], device) for device, part in parts.items()]
            return jax.make_array_from_single_device_arrays(values.shape, sharding, own)

        return jax.tree.map(place, batch, self._batch_shardings(batch))

    def abstract_batch(self, batch: TokenBatch) -> TokenBatch:
        """A global batch's shapes with the shardings that the arrays will have."""
        return jax.tree.map(spread, batch, self._batch_shardings(batch))

    def _batch_shardings(self, batch: TokenBatch) -> TokenBatch:
        rows, tokens = BATCH_AXES, "sequence"
        flat = NamedSharding(self.mesh, PartitionSpec(rows, tokens))
        by_row = NamedSharding(self.mesh, PartitionSpec(rows))
        return TokenBatch(
            flat,
            NamedSharding(self.mesh, PartitionSpec(None, rows, tokens)),
            flat,
            flat,
            flat,
            jax.tree.map(lambda _: by_row, batch.vision),
            dict.fromkeys(batch.extras, flat),
        )

    def jit(self, function: Callable[..., Any], **options: Any) -> OnMesh:
        """`jax.jit` for arrays on the mesh; traced code can read the mesh (attention splits itself by it)."""
        return self.inside(jax.jit(function, **options))

    def inside(self, function: Any) -> OnMesh:
        """The jitted function, called with the mesh as context."""
        return OnMesh(function, self.mesh)
